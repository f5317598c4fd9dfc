#!/usr/bin/env python3
"""Verifies an isotherm execution manifest with securesystemslib, sharing no code with isotherm.

    verify_manifest.py MANIFEST --key PUBLIC.pem [--key ...] [--threshold N] [--at TIME] [--file NAME=PATH ...]

Checks, in this order: N distinct keys signed the payload (DSSE, by securesystemslib); the payload is canonical JSON
without floats; it is an in-toto statement about an execution manifest of version 1; it is valid at TIME (default: now);
the files it names are the sealed ones. Files are looked for at their path hints, relative to the manifest's folder,
unless --file says otherwise; one that is not found is reported and not counted as agreeing.

Needs: securesystemslib and cryptography. Exit codes: 0 verified, 2 usage, 5 refused.
"""

import argparse
import datetime
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:isotherm:execution-manifest:v1"


class Refused(Exception):
    """The manifest does not verify; the text says why."""


def read_key(path):
    """A public key under the name that isotherm gives it: SHA-256 of its SPKI DER."""
    public = load_pem_public_key(pathlib.Path(path).read_bytes())
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(public, keyid=hashlib.sha256(der).hexdigest())


def no_float(text):
    raise Refused(f"the number {text} is a float")


def parse_canonical(payload):
    """The value of canonical JSON. Without floats, RFC 8785 is sorted keys, no spaces, and the fewest escapes."""
    value = json.loads(payload, parse_float=no_float, parse_constant=no_float)
    again = json.dumps(sort_utf16(value), separators=(",", ":"), ensure_ascii=False)
    if again.encode() != payload:
        raise Refused("the payload is not canonical JSON")
    return value


def sort_utf16(value):
    if isinstance(value, dict):
        return {key: sort_utf16(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    if isinstance(value, list):
        return [sort_utf16(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        raise Refused(f"the integer {value} is not below 2^53")
    return value


def instant(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)


def verify(arguments):
    folder = pathlib.Path(arguments.manifest).parent
    envelope = Envelope.from_dict(json.loads(pathlib.Path(arguments.manifest).read_bytes()))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Refused(f"payload type {envelope.payload_type!r}")
    try:
        accepted = envelope.verify([read_key(path) for path in arguments.key], arguments.threshold)
    except VerificationError as error:
        raise Refused(f"signature: {error}") from error
    statement = parse_canonical(envelope.payload)
    predicate = statement["predicate"]
    kind = statement["predicateType"]
    if statement["_type"] != STATEMENT or kind.split(".")[0] != PREDICATE or predicate.get("mustUnderstand"):
        raise Refused(f"predicate type {kind!r}")
    now = instant(arguments.at) if arguments.at else datetime.datetime.now(datetime.timezone.utc)
    if now < instant(predicate["notBefore"]):
        raise Refused(f"not valid before {predicate['notBefore']}")
    if now >= instant(predicate["expiresOn"]):
        raise Refused(f"expired on {predicate['expiresOn']}")
    given = dict(item.split("=", 1) for item in arguments.file)
    for subject in statement["subject"]:
        name = subject["name"]
        hint = subject.get("annotations", {}).get("pathHint")
        path = pathlib.Path(given[name]) if name in given else folder / hint if hint else None
        if path is None or not path.is_file():
            print(f"{name}: not compared, no file at hand")
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != subject["digest"]["sha256"]:
            raise Refused(f"{name} differs: sealed sha256:{subject['digest']['sha256']}, found sha256:{found}")
        print(f"{name}: same file")
    print(f"signed by: {', '.join(sorted(accepted))}")
    print(f"manifest digest: sha256:{hashlib.sha256(envelope.payload).hexdigest()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest")
    parser.add_argument("--key", action="append", required=True, help="public key in PEM; may be repeated")
    parser.add_argument("--threshold", type=int, default=1, help="distinct keys that must have signed")
    parser.add_argument("--at", help="time to verify for, as 2026-11-23T06:55:00Z")
    parser.add_argument("--file", action="append", default=[], metavar="NAME=PATH", help="file of a subject")
    arguments = parser.parse_args()
    try:
        verify(arguments)
    except Refused as refusal:
        sys.exit(print(f"refused: {refusal}", file=sys.stderr) or 5)
    except Exception as error:  # Foreign bytes: whatever goes wrong while reading them is a refusal.
        sys.exit(print(f"refused: {type(error).__name__}: {error}", file=sys.stderr) or 5)


if __name__ == "__main__":
    main()
