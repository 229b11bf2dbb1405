// Package object is a streamlib.Storage on a bucket of an object store that speaks S3's API, which any number of
// processes use at once. There is no leader and no lease: the store's conditional writes decide.
//
// # The form
//
// Each change of a stream is one object below the storage's prefix:
//
//	format                          "durable-streams objects 1\n"
//	s/STEM/GENERATION/FIRST.N       a change
//	d/STEM/GENERATION               the generation may have ended; List looks at the stream more closely
//	g/STEM/GENERATION               the last change of a generation that was collected with all before it
//	collector                       how far the collecting is
//	try/…                           what a starting process tries the store with
//	mirror                          whose mirror the place is
//
// STEM is the stream's name in an encoding that keeps the order of bytes, and a '!' (name.go). GENERATION is 2^53-1
// minus the number of the name's deletions, FIRST is 2^53-1 minus the offset that comes next before the change,
// both in 16 digits, and N is 99,999,999 minus the number of changes before it at that offset, which brought no
// event, in 8. They count down, so the first name that a LIST has is the newest change, and the first behind an
// offset's is the change that holds it.
//
// An object is lines of JSON: first what the change is and what the stream is with it, then its events, as they
// stand in the file of package disk. The last member of each line is the CRC-32C of the bytes before it.
//
//	{"batch":{"nonce":"…","stream":"orders","first":7,"count":1,"bytes":912,…},"crc32c":"…"}
//	{"offset":"0000000000000007","eventStreamId":"orders","data":1,"createdAt":"…","crc32c":"…"}
//
// # A commit
//
// Commit is a PUT of the next change's name with If-None-Match: *. Whoever writes there knows all changes before,
// for their names led to it; so conditions and keys are exact across processes.
//
//   - 200: it is committed.
//   - 412 or 409: the object there is read. With our nonce it is our own, of a request whose answer was lost; else
//     another was first, and the change is *streamlib.ConflictError: the stream decides again.
//   - no answer, 429 or 5xx: the same look, and where nothing is there the PUT is sent again with the same nonce,
//     five times at most. Then it is ErrUnavailable where every answer refused it (429, 503), and an open outcome
//     else: a request may still arrive. What is known of the end is forgotten. An outcome is open, too, where a
//     collector has taken in what is there meanwhile: whose it was cannot be told.
//   - 403 RequestTimeTooSkewed: nothing was stored; what is known was too old. It is learned again.
//   - any other 4xx: nothing was stored, ErrUnavailable.
//
// A process that ends between any two of these has committed the object or has not.
//
// # The fence
//
// Create-if-absent protects only against objects that exist. So each such PUT is signed not with the time of the
// request but with the time at which the end was known: before the request that found it was sent, and not after
// that answer's Date. A store refuses what is signed 15 minutes ago, so neither a process that slept nor a request
// that was stuck can commit on knowledge that is older than that, or than 30 minutes where a clock is as wrong as a
// store bears. What is known for 10 minutes is renewed with a LIST, for the next object not being there tells
// nothing then; and that an object is there does not make what was known of the end any younger. Nothing is
// removed, or changed, that was not superseded for an hour by the store's clock alone: the LastModified of what
// followed it, and the Date of the LIST that told it. TestModel tries all orders, and takes each part away.
//
// # Deletion
//
// The mark d/STEM/GENERATION is written, then a change with "deleted" in the next change's place, against which
// late writers lose. The next life has the next generation.
//
// # Collecting
//
// One process at a time, at most once an hour, lists all objects, a thousand a request, and then of each stream
// that changed:
//
//   - A run of objects is merged: the first of them is written anew, on the condition that it is as it was read
//     (If-Match), with the events of all; then the others are removed, the first first. It has "merged" in its
//     first line, and there no more of what the stream was than what readers need. Objects are merged up to 8 MiB.
//   - What was trimmed is left out of what is written, or removed where it is a whole block. It stays for a while
//     where it is not worth a request.
//   - Generations that are over are removed. The last one's last change goes to g/STEM, and with it the stream is
//     in no list any more: the next life goes on from there.
//
// The newest change of a stream is never merged. Which objects may be written anew is fixed by their names: the
// first ones of blocks of 64, 512, 4,096 and 32,768 offsets, and those of the larger only once the smaller are at
// their end, to take them in whole. So whatever order two collectors come in, and however late their requests, what
// one removes is in what another cannot take away. A crash between leaves objects that are in another one, too;
// readers know their offset and pass over them, and the next pass removes them. A reader that meets a removed
// object lists again.
//
// # What a store must do
//
// Open tries it with some thirty requests below try/, and refuses a store that lets two of 16 racing writers win,
// that does not show what it took, or whose lists are not in order. One that does not look at the date of a
// signature, at If-Match, or lets nothing be removed, is taken and nothing is ever removed there.
//
// Google's store passes over If-None-Match and If-Match. One that does is tried again with what Google has in their
// place, x-goog-if-generation-match with 0 or with the generation that an answer told, in requests that are signed with
// GOOG4-HMAC-SHA256: a request that has headers of both kinds is refused there. The keys are those that Google calls
// HMAC keys. This is by the documentation and by what others measured; it was never tried at Google's.
//
// # What it does not do
//
// A name that was deleted leaves one small object behind. A stream that was trimmed carries the keys that it
// remembers, up to 48 KiB, in each change. The directory buckets of S3 Express are refused, for they list in no order.
package object
