package main

import (
	"os"
	"syscall"
)

// redirect lets what is written to the descriptor of old go to f.
func redirect(old, f *os.File) error { return syscall.Dup3(int(f.Fd()), int(old.Fd()), 0) }
