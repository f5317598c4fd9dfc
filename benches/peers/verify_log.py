"""Reads a log of isotherm with tools that share no code with it: tlog-scales for tiles, proofs and consistency, pymerkle
for roots, pyca/cryptography for the checkpoint's signature.

    python3 verify_log.py LOG_FOLDER --key public.pem [--old checkpoint]

Leaves with 0 if everything fits and 5 if not.
"""

import argparse
import base64
import hashlib
import json
import pathlib
import subprocess
import sys

from cryptography.hazmat.primitives import serialization
from pymerkle import InmemoryTree
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader


def fail(why):
    print(f"refused: {why}", file=sys.stderr)
    sys.exit(5)


def read_checkpoint(path, key):
    text, _, signatures = pathlib.Path(path).read_text().rpartition("\n\n")
    text += "\n"
    origin, size, root = text.split("\n")[:3]
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    wanted = hashlib.sha256(origin.encode() + b"\n\x01" + raw).digest()[:4]
    for line in signatures.splitlines():
        _, name, data = line.split(" ")
        data = base64.b64decode(data)
        if name == origin and data[:4] == wanted:
            key.verify(data[4:], text.encode())
            return int(size), base64.b64decode(root)
    fail("no signature by that key")


def entries(folder, size):
    """The entries, from the bundles, by the specification alone."""
    found = []
    for bundle in range((size + 255) // 256):
        width = min(256, size - 256 * bundle)
        name = f"{bundle:03}" if bundle < 1000 else f"x{bundle // 1000:03}/{bundle % 1000:03}"
        path = pathlib.Path(folder) / "tile" / "entries" / (name if width == 256 else f"{name}.p/{width}")
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:2], "big")
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--key", required=True)
    parser.add_argument("--old")
    arguments = parser.parse_args()
    key = serialization.load_pem_public_key(pathlib.Path(arguments.key).read_bytes())
    folder = pathlib.Path(arguments.folder).resolve()
    try:
        size, root = read_checkpoint(folder / "checkpoint", key)
        lines = entries(folder, size)
        if len(lines) != size:
            fail(f"{len(lines)} entries; the checkpoint counts {size}")
        tree = InmemoryTree(algorithm="sha256")
        for line in lines:
            json.loads(line)
            tree.append_entry(line)
        if size and tree.get_root() != root:
            fail("pymerkle finds another root")
        reader = TilesReader(LocalBackend(folder))
        reader.set_size(size)
        if size and reader.calculate_root_hash() != root:
            fail("tlog-scales finds another root in the tiles")
        if arguments.old:
            old_size, old_root = read_checkpoint(arguments.old, key)
            if old_size > size or tree.get_root(old_size) != old_root:
                fail("the log does not continue the older checkpoint")
            if 0 < old_size < size:
                reader.get_consistency_proof(old_size, size).check(old_root, root)
        cli = [sys.executable, "-m", "tlog_scales.cli"]
        for index in sorted({0, size // 2, size - 1}) if size else []:
            leaf = subprocess.run([*cli, "get-leaf", "-c", str(folder), str(index)], capture_output=True, check=False)
            if leaf.returncode != 0 or leaf.stdout.rstrip(b"\n") != lines[index]:
                fail(f"tlog-scales does not find entry {index} in the checkpoint: {leaf.stderr.decode()[-300:]}")
    except Exception as error:  # every reason is a refusal here
        fail(f"{type(error).__name__}: {error}")
    print(f"{size} entries verify")


if __name__ == "__main__":
    main()
