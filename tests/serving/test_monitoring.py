"""Metrics for Prometheus: counts, fixed labels, and separate servers."""

import re

from fake_server import colorizer, photo
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from knowhue.serving.api import make_app
from knowhue.serving.monitoring import Monitor
from knowhue.serving.settings import ServerSettings

JPEG = photo()


def values(text: str) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_happened():
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1))
    with TestClient(app, base_url="http://localhost") as client:
        for _ in range(3):
            client.post("/v1/colorize", content=JPEG, headers={"content-type": "image/jpeg"})
        client.post("/v1/colorize", content=b"no", headers={"content-type": "image/jpeg"})
        client.get("/healthz", headers={"host": "evil.example"})
        found = values(client.get("/metrics").text)
    assert found["knowhue_requests_total", "/v1/colorize", "200"] == 3
    assert found["knowhue_requests_total", "/v1/colorize", "415"] == 1
    assert found["knowhue_requests_total", "/healthz", "421"] == 1
    assert found["knowhue_refused_total", "kind"] == 1
    assert found["knowhue_refused_total", "host"] == 1
    assert found["knowhue_stage_seconds_count", "fake", "paint"] == 3
    assert found["knowhue_stage_seconds_count", "decode", "fake"] == 4
    assert found["knowhue_batch_images_sum", "fake"] == 3
    assert found["knowhue_queue_length", "fake"] == 0
    assert found["knowhue_requests_underway",] == 1  # the one that reads them


def test_callers_cannot_make_up_labels():
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1))
    with TestClient(app, base_url="http://localhost") as client:
        for number in range(50):
            client.get(f"/made-up-{number}")
            client.request(f"METHOD{number}", "/healthz")
        text = client.get("/metrics").text
    assert "made-up" not in text
    assert len(re.findall("^knowhue_requests_total", text, re.M)) <= 3


def test_two_servers_in_one_process_do_not_share_a_count():
    first, second = Monitor(), Monitor()
    first.refused.labels("busy").inc()
    assert b"busy" not in second.text()
