package object

import "net/http"

// A spelling is in which words a store is asked for what both of them can say. Google's XML API knows requests of S3
// and their signatures, and passes over the conditions of a PUT in them. It has conditions of its own, on the number
// that each write of an object gets, and takes no header of the one spelling beside one of the other (400
// ExcessHeaderValues), so that its requests are signed in its own words, too: docs.cloud.google.com/storage/docs,
// "Request preconditions", "Signatures" and "Simple migration from Amazon S3".
type spelling struct {
	scheme  string // of the signature
	service string // in its scope
	region  string // in its scope
	prefix  string // of the names of headers
	absent  [2]string
	match   string // the header that has the version that is to be written over
	version string // the header of an answer that has it
}

var (
	amazon = spelling{"AWS4", "s3", "us-east-1", "X-Amz-", [2]string{"If-None-Match", "*"}, "If-Match", "Etag"}
	google = spelling{"GOOG4", "storage", "auto", "X-Goog-", [2]string{"X-Goog-If-Generation-Match", "0"},
		"X-Goog-If-Generation-Match", "X-Goog-Generation"}
)

// condition makes the request one that is done only where the object is not there, or is still as it was read.
func (s spelling) condition(r *http.Request, ifMatch string) {
	switch ifMatch {
	case "":
	case ifAbsent:
		r.Header.Set(s.absent[0], s.absent[1])
	default:
		r.Header.Set(s.match, ifMatch)
	}
}
