//go:build !unix

package daemon

// noFollow is nothing here: on Windows, what makes links needs a privilege.
const noFollow = 0
