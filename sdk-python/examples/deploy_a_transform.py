"""Deploys a WebAssembly module, runs it on a topic, and watches it work.

python deploy_a_transform.py millpond://localhost:9440?fp=sha256:... plugins/dist/drop-idle.wasm
"""

import json
import sys

import millpond


def main(url: str, module: str) -> None:
    with millpond.connect(url) as client:
        transforms = client.admin.transforms
        client.admin.create_topic("machines", if_exists="ok")
        deployed = transforms.deploy("drop-idle", module)
        print(f"{deployed.name} version {deployed.version}, {deployed.world}, {deployed.size_bytes} bytes")
        transforms.attach("machines", "drop-idle")
        with client.producer("machines", value=millpond.json) as producer:
            for number in range(8):
                producer.send({"device": f"m{number}", "state": "idle" if number % 2 else "running", "idle": bool(number % 2)})
        kept = [json.loads(record.value or b"null") for record in client.consumer("machines", start="beginning", until_end=True)]
        print(f"{len(kept)} of 8 records are kept")
        attachment = client.admin.topic("machines").attachments[0]
        print(f"in {attachment.records_in}, dropped {attachment.records_dropped}, failures {attachment.failures}")
        for line in transforms.logs("drop-idle").lines:
            print(line.at.isoformat(), line.level, line.message)
        transforms.detach("machines", "drop-idle")
        transforms.delete("drop-idle")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
