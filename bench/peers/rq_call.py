"""RQ as the old gateway used it: a function that makes the HTTP call. REDIS_URL, SERVICE_URL, BODY, JOBS, MODE=enqueue|fork|simple."""
import os
import sys
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def call(body):
    request = urllib.request.Request(
        os.environ["SERVICE_URL"] + "/noop",
        data=body.encode(),
        headers={"content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request) as response:
        return response.read().decode()


if __name__ == "__main__":
    from redis import Redis
    from rq import Queue, SimpleWorker, Worker

    connection = Redis.from_url(os.environ["REDIS_URL"])
    queue = Queue("noop", connection=connection)
    if os.environ["MODE"] == "enqueue":
        for _ in range(int(os.environ["JOBS"])):
            queue.enqueue("rq_call.call", os.environ["BODY"], result_ttl=86400)
    else:
        kind = Worker if os.environ["MODE"] == "fork" else SimpleWorker
        print("ready", flush=True)
        kind([queue], connection=connection).work(burst=True, logging_level="ERROR")
