"""What the service answers, as schemas: the shapes of ``scalefp --json`` plus what dates them."""

from pydantic import BaseModel, Field

Hex = Field(pattern="^[0-9a-f]+$")


class Named(BaseModel):
    """An issued key that agrees with the images better than chance allows."""

    holder: str
    key: str | None = Field(None, pattern="^[0-9a-f]+$", description="only with the token")
    p_value: float = Field(
        description="at most the probability that any issued key would agree this well if all of "
        "them were innocent"
    )
    odds: str = Field(description="p_value in words, rounded down", examples=["1 in 4 × 10^12"])
    matches: int = Field(description="bits of the key that agree with those read")
    effective_bits: float = Field(description="how many equally sure bits the reading is worth")
    margin: float = Field(description="bits of evidence more than the best key not named has")
    revoked: str | None = Field(None, description="when the key was revoked, null if it is active")


class Explanation(BaseModel):
    code: str = Field(description="stable, for programs")
    message: str = Field(description="one sentence: what is wrong and how to mend it")


class Problem(BaseModel):
    error: Explanation


class NotJudged(BaseModel):
    """An image that cannot be read, in the place of its verdict."""

    images: list[str] = Field(description="its name as sent")
    sha256: list[str] = Field(description="of the file as sent")
    error: Explanation


class Verdict(BaseModel):
    """One image, or several as one source."""

    images: list[str] = Field(description="names as sent")
    sha256: list[str] = Field(description="of each file as sent")
    attributed: list[Named] = Field(description="best first; empty means nobody")
    fpr: float = Field(description="accepted probability of naming anybody wrongly")
    form: str = Field(description="soft or hard")
    issued: int = Field(description="keys ever issued, all of which were compared")
    never: str | None = Field(
        None, description="why keys so short and so many can never name anybody at this fpr"
    )
    read: str | None = Field(None, description="bits read, as hexadecimal digits; with the token")
    model_digest: str = Field(description="SHA-256 of the release file")
    registry_head: str = Field(description="digest of the registry's newest audit entry")
    unread: list[NotJudged] = Field([], description="with same_source: images left out, and why")


class Decoded(BaseModel):
    """What was read from one image."""

    image: str = Field(description="name as sent")
    key: str = Hex
    confidence: float = Field(description="mean of |sigmoid(logit) - 1/2| * 2, from 0 to 1")
    sha256: str = Field(description="of the file as sent")


class NotDecoded(BaseModel):
    """An image that cannot be read, in the place of its key."""

    image: str = Field(description="name as sent")
    sha256: str = Field(description="of the file as sent")
    error: Explanation


class Listed(BaseModel):
    """A key ever issued, without the key."""

    holder: str
    issued_at: str
    revoked_at: str | None
    model_digest: str


class Issued(Listed):
    key: str = Field(description="secret: shown only here", pattern="^[0-9a-f]+$")


class Release(BaseModel):
    digest: str
    resolution: int
    n_bits: int


class RegistryState(BaseModel):
    issued: int
    head: str | None = Field(description="digest of the newest audit entry")


class Allowed(BaseModel):
    """Limits of one request."""

    upload_bytes: int
    images: int
    pixels: int
    fpr: float = Field(description="greatest accepted probability of naming anybody wrongly")


class Health(BaseModel):
    status: str
    version: str
    release: Release
    registry: RegistryState
    issuing: bool = Field(description="whether POST /keys is on")
    limits: Allowed
