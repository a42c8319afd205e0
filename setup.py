"""What setup.cfg cannot say: the detector in C. Where it cannot be built, the one in torch does the work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "dataprep.detection._mtcnn",
            ["dataprep/detection/_mtcnn.c"],
            depends=["dataprep/detection/_mtcnn.c"],
            # no contraction: the file says itself where it fuses, so that AVX2 and AVX-512 agree to the bit
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno"],
            optional=True,
        )
    ]
)
