"""A request's random stream, for samplers that draw the random numbers themselves from a seed."""

import hashlib
import json

from guide_rl.types import Request


def request_key(request: Request) -> bytes:
    """16 bytes that follow from (seed, problem_id, index, guided) alone, so that a rollout does not depend on its batch."""
    key = json.dumps([request.seed, request.problem_id, request.index, request.guided]).encode()
    return hashlib.blake2b(key, digest_size=16).digest()


def request_seed(request: Request) -> int:
    """The same as a number below 2**31, which every server takes."""
    return int.from_bytes(request_key(request)[:4], "little") >> 1
