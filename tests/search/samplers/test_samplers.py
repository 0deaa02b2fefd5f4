from contracts import SamplerContract, test_every_registered_component_has_an_example  # noqa: F401


class TestSamplers(SamplerContract):
    pass
