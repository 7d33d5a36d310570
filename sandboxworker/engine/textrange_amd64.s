#include "textflag.h"

// func textRange() (from, to uintptr)
TEXT ·textRange(SB), NOSPLIT, $0-16
	LEAQ runtime·text(SB), AX
	MOVQ AX, from+0(FP)
	LEAQ runtime·etext(SB), AX
	MOVQ AX, to+8(FP)
	RET
