from tests.reporting.conftest import paper_config  # noqa: F401 (a fixture)
