// Package transfer copies streams from one storage to another, exactly: events with their offsets, times, keys and
// bytes, and what a stream has beside its events. [Export] writes them as lines of JSON, and [Import] takes these in.
//
// # The form of an export
//
// It is a contract: what one version exports each later one imports.
//
//	{"export":"durable-streams 1","crc32c":"af5eedf5"}
//	{"stream":"orders","life":2,"first":"0000000000000007","closed":true,"tail":"0000000000000009","updatedAt":"2024-01-08T00:00:04.000Z","crc32c":"2e97ade3"}
//	{"offset":"0000000000000007","eventStreamId":"orders","data":{"n":7},"createdAt":"2024-01-08T00:00:00.000Z","crc32c":"f2e499b0"}
//	{"offset":"0000000000000008","eventStreamId":"orders","data":{"n":8},"createdAt":"2024-01-08T00:00:04.000Z","key":"k","crc32c":"740056e0"}
//	{"end":"orders","tail":"0000000000000009","crc32c":"fbdeea9f"}
//	{"exported":1,"events":2,"crc32c":"4bcd7c3a"}
//
// Each line is an object of JSON in UTF-8, ends with a line feed and has no white space between its tokens; its first
// member says what it is.
//
//   - "export", the first line, has the name of the form.
//   - "stream" begins a stream: its name, life, first kept offset, whether it is closed, its tail, when its last event
//     was created, "keys", what is remembered of dropped ones, "note" and "held", all as of one moment; streamlib.State says what
//     these are. What is zero is left out. Where the events before an offset were not asked for, "from" is that offset.
//   - "offset" is an event, from the first (or from) on, without a gap. It is the line that the stream's file has: the
//     event's public form and then its key, if it was appended with one.
//   - "end" ends the stream: all events before its tail stand there. Where they could not be read, "broken" stands in
//     its place, with the offset that comes next as its tail, and the cause.
//   - "exported", the last line, is how many streams that are whole and how many events there are. Another export may
//     follow.
//
// The last member of each line is the CRC-32C of its bytes before `,"crc32c"`, as in package disk. A line without one
// is taken as it is: who changes an export by hand or with jq leaves it out. A member that is not known here is one of
// a newer version and is refused.
//
// So no part of an export can be lost unseen: where a line is damaged, or one is missing, or the end is, the import
// says so and names the line, and what it has stored until then are the first events of streams as they were exported.
//
//	jq -c 'select(.offset) | .data' FILE          # all events' data
//	jq -r 'select(.stream) | .stream' FILE        # the streams' names
//
// # One moment
//
// What a stream's lines tell was true at one moment, between the begin of the export and the stream's first line. The
// moments of two streams are two. A stream that is deleted while it is read is broken off, and so is one whose events
// are dropped before they were read.
package transfer
