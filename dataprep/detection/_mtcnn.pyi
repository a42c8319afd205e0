def detect(
    weights: bytes,
    image: object,
    width: int,
    height: int,
    min_face: float,
    thresholds: tuple[float, float, float],
    factor: float,
    level: str,
    rule: int,
    box: tuple[float, float, float, float],
    least: float,
) -> tuple[bytes, int]: ...
def level(wanted: str) -> str: ...
