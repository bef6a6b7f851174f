"""Reading PTX: which instructions are in which loop."""

from __future__ import annotations

from benchmarks.cuda import ptx

NESTED = """.entry k(
)
{
	.reg .b32 %r<3>;
	mov.u32 %r1, 0;
$L__outer:
	add.s32 %r1, %r1, 1;
	bra.uni $L__inner;
$L__exit:
	ret;
$L__inner:
	mul.f64 %fd1, %fd1, %fd1;
	@%p1 bra $L__inner;
	@%p2 bra $L__outer;
	bra.uni $L__exit;
}
"""


def test_the_innermost_loop_is_the_inner_one() -> None:
    (loop,) = ptx.loops(ptx.body(NESTED))
    assert loop == ["mul.f64 %fd1, %fd1, %fd1;", "@%p1 bra $L__inner;"]


def test_a_jump_back_is_no_loop() -> None:
    straight = NESTED.replace("@%p1 bra $L__inner;", "").replace("@%p2 bra $L__outer;", "")
    assert ptx.loops(ptx.body(straight)) == []
