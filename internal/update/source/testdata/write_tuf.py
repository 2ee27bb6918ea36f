"""Makes a repository with python-tuf around the files of a folder.

It has keys of three kinds, a threshold of two for root, a root that was rotated,
consistent snapshots, and a delegation that holds the targets.

usage: write_tuf.py FILES-FOLDER REPOSITORY-FOLDER EXPIRES
"""

import datetime
import pathlib
import sys

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

files, out, expires = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
expires = datetime.datetime.fromisoformat(expires).replace(tzinfo=datetime.timezone.utc)
metadata = out / "metadata"
metadata.mkdir(parents=True)

signers = {
    "root": [CryptoSigner.generate_ed25519(), CryptoSigner.generate_rsa()],
    "targets": [CryptoSigner.generate_ecdsa()],
    "snapshot": [CryptoSigner.generate_rsa()],
    "timestamp": [CryptoSigner.generate_ed25519()],
    "builds": [CryptoSigner.generate_ecdsa()],
}


def write(role, md, signers, name=None):
    for s in signers:
        md.sign(s, append=True)
    data = md.to_bytes()
    (metadata / (name or f"{md.signed.version}.{role}.json")).write_bytes(data)
    return MetaFile.from_data(md.signed.version, data, ["sha256"])


root = Root(expires=expires, consistent_snapshot=True)
for role in ("root", "targets", "snapshot", "timestamp"):
    for s in signers[role]:
        root.add_key(s.public_key, role)
root.roles["root"].threshold = 2
write("root", Metadata(root), signers["root"])
old = signers["timestamp"]
signers["timestamp"] = [CryptoSigner.generate_ecdsa()]
root.revoke_key(old[0].public_key.keyid, "timestamp")
root.add_key(signers["timestamp"][0].public_key, "timestamp")
root.version = 2
write("root", Metadata(root), signers["root"])

builds = Targets(expires=expires)
for file in sorted(files.rglob("*")):
    if file.is_file():
        path = file.relative_to(files).as_posix()
        info = TargetFile.from_file(path, str(file), ["sha256"])
        builds.targets[path] = info
        for prefixed in info.get_prefixed_paths():
            to = out / "targets" / prefixed
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
key = signers["builds"][0].public_key
targets = Targets(expires=expires)
targets.delegations = Delegations(
    keys={key.keyid: key},
    roles={"builds": DelegatedRole("builds", [key.keyid], 1, True, paths=["*/*/*"])},
)
snapshot = Snapshot(expires=expires)
snapshot.meta = {
    "targets.json": write("targets", Metadata(targets), signers["targets"]),
    "builds.json": write("builds", Metadata(builds), signers["builds"]),
}
timestamp = Timestamp(expires=expires)
timestamp.snapshot_meta = write("snapshot", Metadata(snapshot), signers["snapshot"])
write("timestamp", Metadata(timestamp), signers["timestamp"], "timestamp.json")
