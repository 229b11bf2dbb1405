//go:build !linux

package disk

func (f osFile) sync() error { return f.Sync() }
