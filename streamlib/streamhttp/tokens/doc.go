// Package tokens says who may do what with streams: a [File] is a streamhttp.Access.
//
// # The file
//
// A token a line; white space stands between its words:
//
//	NAME SHA256 read|write|admin [prefix=P ...] [expires=TIME]
//
// NAME is for people and for messages, and there once. SHA256 is the digest of the secret as 64 hex digits: the file
// does not have the secret. Read is reading, following and listing; write is appending too; admin is deleting too.
// With prefixes the token is for the streams alone whose names begin with one of them; in P, white space and "%" are
// written as in a URL, "%20" and "%25". TIME is RFC 3339's, such as 2027-01-31T00:00:00Z. A word that begins with "#"
// begins a comment, to the end of its line. A byte order mark and carriage returns are passed over.
//
// On unix the file must be readable by its owner alone. It must not be a pipe, for it is read again: when it changes,
// half a second after the last change, and on Reload. One that is bad, empty or missing then changes nothing, and the
// log says so. No error names what stands in the file but names, for it may be a secret that was put there by
// mistake.
//
// # Requests
//
// The secret comes as "Authorization: Bearer SECRET", never in a URL. For a browser's EventSource, which sends no
// headers, POST /session with that header answers with a cookie, signed, for 12 hours and never longer than the token
// lives.
//
// Who has which secret cannot be found out by how long an answer takes: what is looked up and compared are digests,
// which nobody can choose the secret for.
package tokens
