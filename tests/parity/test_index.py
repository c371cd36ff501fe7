"""Every file that the golden index lists is read by a test here, and the formula is the recorded one."""

from pathlib import Path

import golden_arrays as golden
import numpy as np


def test_every_file_is_covered() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    listed = {case["file"] for case in golden.table("f_ckd_cases.json")}
    listed |= {f"d_st_iter{entry['iter']}.npz" for entry in golden.table("d_st_trajectory.json")}
    listed |= {f"a_tinyA_{mode}.npz" for mode in ("eval", "train")}
    unread = [name for name in golden.index() if name not in listed and name not in source]
    assert not unread, f"golden files that no test reads: {unread}"


def test_formula() -> None:
    for name, recorded in golden.table("formula_check.json").items():
        shape = (len(recorded["u01_first5"]),)
        assert golden.uniform(name, shape).tolist() == recorded["u01_first5"]
        assert np.allclose(golden.unit(name, shape), recorded["unit_first5"], rtol=0, atol=0)
