def detect(
    weights: bytes,
    image: object,
    width: int,
    height: int,
    min_face: float,
    thresholds: tuple[float, float, float],
    factor: float,
    level: str,
) -> bytes: ...
def level(wanted: str) -> str: ...
