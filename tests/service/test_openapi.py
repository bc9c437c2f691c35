"""Requests made up from the OpenAPI description: nothing crashes, every answer is as described."""

from collections.abc import Iterator
from unittest import mock

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from scalefp.service.app import create_app
from scalefp.service.desk import Desk
from service.conftest import TOKEN

load_all_checks()
BOUNDED = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
OPERATIONS = [
    ("/attribute", "POST"),
    ("/decode", "POST"),
    ("/keys", "POST"),
    ("/keys", "GET"),
    ("/health", "GET"),
]


@pytest.fixture(scope="module")
def schema(shared_desk: Desk) -> Iterator[schemathesis.BaseSchema]:
    with mock.patch.object(shared_desk, "close"):  # a client of an ASGI application shuts it down
        yield schemathesis.openapi.from_asgi("/openapi.json", create_app(shared_desk, token=TOKEN))


def test_every_operation_is_asked(schema: schemathesis.BaseSchema) -> None:
    described = [result.ok() for result in schema.get_all_operations()]
    assert sorted((one.path, one.method.upper()) for one in described) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("path", "method"), OPERATIONS[:-1])
def test_strangers_requests(
    schema: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
) -> None:
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @BOUNDED
    def ask(case: schemathesis.Case) -> None:
        # Bytes made up by chance are no image, however well described: 422 is right.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


def test_health_needs_nothing(schema: schemathesis.BaseSchema) -> None:
    schema["/health"]["GET"].Case().call_and_validate()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_owners_requests(schema: schemathesis.BaseSchema, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}

    @given(case=schema["/keys"]["POST"].as_strategy(generation_mode=mode, headers=headers))
    @BOUNDED
    def ask(case: schemathesis.Case) -> None:
        # The description cannot say which characters are printable, or which holders have a key.
        response = case.call()
        assert response.status_code in (201, 400, 409, 422)
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    ask()
