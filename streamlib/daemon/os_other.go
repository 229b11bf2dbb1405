//go:build !unix

package daemon

import "os"

// noFollow is nothing here: on Windows, what makes links needs a privilege.
const noFollow = 0

// Give does nothing: what is made in a folder belongs to who may use that.
func Give(*os.File, string) {}
