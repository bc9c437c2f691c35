"""Attribution of very many images: divided in shards, each read by one worker and written once."""
