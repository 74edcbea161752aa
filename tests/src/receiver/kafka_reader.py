"""Reads a topic from its beginning, and writes each record as a line of JSON.

It asks one broker for one partition after another, and nobody else, whatever address the broker tells others to go to.

Arguments: address, port, topic, number of partitions.
"""

import json
import socket
import sys
import time

from kafka.conn import BrokerConnection
from kafka.protocol.fetch import FetchRequest
from kafka.record import MemoryRecords

FETCH_BYTES_MAX = 64 << 20
ANSWERS_WITHIN_SECS = 10


def ask(connection, request):
    future = connection.send(request)
    until = time.monotonic() + ANSWERS_WITHIN_SECS
    while not future.is_done:
        for response, waiting in connection.recv():
            waiting.success(response)
        if time.monotonic() > until:
            sys.exit("no answer in time")
    if future.failed():
        sys.exit(f"the broker: {future.exception}")
    return future.value


def fetch(connection, topic, partition, offset):
    """The bytes of the records from this one on."""
    # No replica; wait 100 ms for a byte; read what is committed.
    whole = [(topic, [(partition, offset, FETCH_BYTES_MAX)])]
    answer = ask(connection, FetchRequest[4](-1, 100, 1, FETCH_BYTES_MAX, 1, whole))
    error, records = answer.topics[0][1][0][1], answer.topics[0][1][0][-1]
    if error:
        sys.exit(f"the broker's error {error}")
    return records or b""


def read(connection, topic, partition):
    offset = 0
    while records := fetch(connection, topic, partition, offset):
        batches = MemoryRecords(records)
        before = offset
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.validate_crc():
                sys.exit("a batch's checksum is wrong")
            for record in batch:
                # A batch is given whole, also from its middle.
                if record.offset >= offset:
                    yield record
                    offset = record.offset + 1
        if offset == before:
            return


def text_of(value):
    return None if value is None else value.decode(errors="replace")


def main():
    host, port, topic, partitions = sys.argv[1:5]
    connection = BrokerConnection(host, int(port), socket.AF_INET, api_version=(0, 11))
    if not connection.connect_blocking(ANSWERS_WITHIN_SECS):
        sys.exit("the broker is not there")
    for partition in range(int(partitions)):
        for record in read(connection, topic, partition):
            line = {
                "partition": partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp,
                "key": text_of(record.key),
                "value": text_of(record.value),
                "headers": {name: text_of(value) for name, value in record.headers},
            }
            print(json.dumps(line))


main()
