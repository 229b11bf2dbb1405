//go:build !unix

package tokens_test

import "os"

func makePipe(path string) error { return os.Mkdir(path, 0o700) }
