//! What `millpond bench --help` says about the measurements.

/// For `-h`.
pub(super) const SHORT: &str = "`millpond bench --help` explains the limits, the cases and their targets.";

/// For `--help`. The lines of the tables fit into 100 columns.
pub(super) const LONG: &str = "\
Everything is measured between two processes of this machine: this one is the client, the other one a broker with the settings that \
everybody gets, or, for the limits of QUIC, a peer that only moves bytes. Limits and cases take turns in several rounds, and each number \
is the median of its rounds. A ratio compares two numbers of one run, taken moments apart: it says how much of what the machine gives \
Millpond reaches. Numbers of different runs, or of different machines, don't compare.

Limits of the machine:
  raw quinn         MB/s in bulk over one QUIC connection, half of the rounds in each direction
  quinn ping        1 KiB there and 16 bytes back on an open stream, one after the other
  sequential write  MB/s to a new file, 1 MiB at a time, with one fdatasync at the end
  flushed write     the same, 512 KiB at a time, with an fdatasync after each
  fdatasync         4 KiB appended and flushed, one after the other

Cases:               what it does                            is held against    target
  produce_1k_os        records of 1 KiB, durability os         raw quinn          0.6 or more
  produce_1k_sync      the same, durability sync               sequential write   0.7 or more
  consume_1k           reading those of produce_1k_os          raw quinn          0.6 or more
  group_commit         64 writers that wait for each answer    flushed write      0.9 or more
  produce_100b_os      readings in JSON of 100 bytes each      raw quinn          -
  produce_100b_filter  the same, a module drops one of four    produce_100b_os    0.85 or more
  produce_100b_json    the same, it reads and changes JSON     produce_100b_os    0.6 or more
  ack_latency_os       one record of 1 KiB after the other     quinn ping         3 times or less
  ack_latency_sync     the same, durability sync               fdatasync + ping   -
  end_to_end_os        500 records a second, up to a consumer  quinn ping         -
  deploy               from an upload to a record through it   0.1 seconds        1 or less
  restart              from the command to the first answer    one second         1 or less

Records a second count for the two with a module, the median for latencies, MB/s (10^6 bytes of values a second) for the rest. Throughput \
is measured on topics of 3 partitions, with the producer's defaults; latency on one partition, without linger. At 500 records a second \
threads fall asleep in between, and waking them is part of end_to_end_os, not of the ping.

In group_commit the broker's engine runs in this process, and each writer hands it a batch of 16 KiB for the one partition, with durability \
sync, and the next when it has the answer: no network is in it. While one flush is under way, those whom the last one answered write again, so \
that each flush has half of the batches under way: 512 KiB, which is what flushed write flushes at once. In restart a broker that was stopped in order, with 5 GiB in one partition (1 GiB with --quick), is started \
with nothing of its files in the page cache.

Where the disk is faster than QUIC, the target of produce_1k_sync is 0.6 of raw quinn, as that of produce_1k_os. When a \
target is missed, the command ends with 1, after it has shown everything.

The cases with modules need them: produce_100b_filter identity.wasm, which costs a filter nothing but the way into a module and back, \
produce_100b_json and deploy drop-idle.wasm, or for the first of the two another one that is named with --plugin. They are looked for in \
plugins/dist under the current folder, beside the binary, and in the repository that the binary was built in. Without one, a case is left \
out and a note on stderr says so. In deploy each upload is compiled: the broker has not seen it before.

With `-o json` the result is {\"limits\":{…},\"results\":[{\"name\",\"mb_s\",\"records_s\",\"p50_us\",\"p99_us\",\"limit\",\"ratio\",\"target\",\"reached\"}]}, with null for \
what does not apply or was left out; `-o jsonl` is the same on one line.

Examples:
  millpond bench --quick
  millpond bench --data-dir /var/lib/millpond -o json
  millpond bench --only produce_1k_os consume_1k --seconds 5";
