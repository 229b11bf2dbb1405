//go:build !windows

// Package patience waits where the system refuses what is to be done with a file while another program has it open. On
// Windows it does: most programs that read a file, virus scanners and those that make backups among them, do not share
// it with who writes, renames or removes it.
package patience

// Open calls open, on Windows again and again for two seconds while another program does not share the file.
func Open(open func() error) error { return open() }

// Replace calls replace, which renames or removes a file, on Windows again and again for two seconds while another
// program has that file open, or the one in whose place it is to be.
func Replace(replace func() error) error { return replace() }
