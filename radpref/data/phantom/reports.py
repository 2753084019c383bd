from dataclasses import dataclass
@dataclass(frozen=True)
class Report:
    findings: str
def write(*a): return Report("")
