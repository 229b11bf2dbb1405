// Package disk is a streamlib.Storage on a folder: one plain file of JSON lines a stream, and one journal that they
// all share.
//
// # The folder
//
//	DIR/format                           "durable-streams 1", or 2: a newer one is refused, untouched
//	DIR/streams/NAME.json                the stream's events, one line each
//	DIR/state/NAME.json                  what the stream has beside events, for the few that have
//	DIR/deletions                        how many deletions the folder has seen
//	DIR/journal/0000000000000001.journal what may not be durable in its place yet
//	DIR/damaged/NAME.json                what was found damaged in the stream, which takes no appends
//
// The process that has the folder holds an flock(2) on DIR itself. Folders have mode 0700, files 0600; what root makes
// in another user's DIR is that user's. Nothing outside DIR is ever opened: all access goes through an os.Root.
//
// # Lines
//
// A line is an event, the storage's own members behind its public ones: the idempotency key if it was appended with
// one, and, last, the CRC-32C (RFC 3720, appendix B.4; the Castagnoli polynomial) of the line's bytes before
// `,"crc32c"`:
//
//	{"offset":"0000000000000000","eventStreamId":"s","data":1,"createdAt":"2024-01-08T00:00:00.000Z","crc32c":"7918e28e"}
//
// Offsets are contiguous, from 0 or what the stream's state says. There is no index: the tail is in the last line, and an offset is found by a binary
// search over bytes, so opening and seeking cost the same at ten events and at ten gigabytes. A line whose first
// member is not "offset" is a control record; there is one, with which older versions marked a stream whose journal
// could not be replayed:
//
//	{"unreplayed":"streams/s.unreplayed-7","reason":"…","crc32c":"…"}
//
// NAME is the stream's name with each byte that is no lower-case letter, digit, '-', '_' or '.' as '%' and two hex
// digits, so that it is safe where upper and lower case are the same; a name too long for that is '~' and its
// SHA-256. Beside it may stand
//
//	NAME.torn-POSITION       what recovery cut off there: it was never acknowledged
//	NAME.unreplayed-OFFSET   what the journal had from that offset on, where the file before it is damaged or gone
//	NAME.deleted-0           the file, where a journal says that it was deleted, and does not know its events
//	NAME.damaged-POSITION    the file as it was before Repair cut it there
//	NAME.json.cut            a repair that did not finish; the next one begins it again
//	NAME.salvaged-OFFSET     the whole lines that stood behind that, from the event with that offset on
//	NAME.json.converting     a conversion that did not finish; the next start begins it again
//
// None of these copies is ever written again, renamed over or removed: where a name is taken, and by another copy
// than the one that is to be made, a number follows it, as in s.damaged-129.2. A crash may leave a part of one.
//
// # State
//
// What a stream has beside its events is its streamlib.State: the life, the first event that is kept, whether it is
// closed, the keys of appends whose events were dropped, what others note of it, and whether they hold it, for which the
// folder's format is "durable-streams 3". It is in a line of its own, in a file of its own:
//
//	{"stream":"s","first":"0000000000000001","crc32c":"1f08c63d"}
//	{"stream":"done","life":1,"closed":true,"crc32c":"0ccfdb8c"}
//
// A change of it is a line in the journal, in the frame of the events that it belongs to, and so is durable with them.
// Its file is written by the checkpoint that lets that journal go, once for all changes in it: until then the file may
// be older, and memory has what holds. So a commit that changes a state costs what one without does, there is nothing
// to take back of it, and none of it is among the events that jq, tail -f and readers see. A control line in the
// stream's file would be, and would have to be found again at each opening, before a trim and behind one.
//
// A life that is not 0 and nothing else is no file: it stands in the line of event 0, behind the key,
// as "life":"0000000000000001". That is what a stream has whose name was deleted before, or any other.
//
// A folder in which a stream has a state has the format 2, which it gets with the first one. The count of deletions
// stands in each {"delete":…} of a journal, and in DIR/deletions once that journal goes:
//
//	{"deletions":"0000000000000001","crc32c":"2a560fc8"}
//
// That file has two such lines, and one is written over when the other is durable: so counting needs no room on a full
// disk, and one that is torn leaves the other.
//
// # Trimming
//
// To trim a stream sets "first" in its state. What stands before goes later, in the background, and only where that is
// as much as what stays or more: what is kept is then copied to a new file, which takes the stream's name. Thus all that
// was ever written for it is less than what went, which is less than what was appended, and the file is never more than
// twice what is kept. A file that begins at or before "first" is whole; one that begins behind it has lost its
// beginning, and is damaged.
//
//	openat(streams/.trimmed), pwrite, …  what is kept, checked line by line, and again what was appended meanwhile
//	fdatasync                            until that is little
//	(in a commit of its own)             no journal went since that sync, and none is on its way; else once more
//	pwrite(streams/.trimmed)             the last few lines; the journals have them
//	rename(streams/.trimmed, NAME.json)  a crash leaves the old file or the new one; the journals have what either lacks
//	(after it) fsync(streams)            the old one does not come back
//
// No journal goes without a sync of the new file and of its name, for it syncs both by the name. No append waits for a
// sync of these; those who come while the last lines are copied, 256 KiB at most, wait for that.
//
// # Damage
//
// Damage that is met once, by a read, when a stream is opened, by Verify or at the start, is written down in
// DIR/damaged, in a line like
//
//	{"stream":"s","file":"streams/s.json","offset":133,"reason":"a line whose checksum is wrong","crc32c":"…"}
//
// and from then on the stream takes no appends, whatever that file says or has become, until Repair has cut the
// damage off, or found that there is none any more, or the stream is deleted. Otherwise Repair would give up what was
// acknowledged behind it, and offsets would be given twice. Where the line cannot be written, as on a full disk, that
// holds for this process, and who meets the damage again tries again. An error of the disk while reading is no
// damage. What stands before the damage still reads.
//
// So is a file marked that somebody changed under the store: its size is looked at before each append, and whether it
// is still the file at its path when streams/ has changed. What is not the store's is never written behind.
//
// # The journal
//
// A frame is a line of fixed length and the lines of one commit, of all its streams in commit order:
//
//	{"generation":"0000000000000001","sequence":"0000000000000001","length":"0000000000000133","crc32c":"07c192a2"}
//	{"offset":"0000000000000004","eventStreamId":"s","data":"in the journal","createdAt":"2024-01-08T00:00:00.004Z","crc32c":"727621e8"}
//
// The checksum is over the header before `,"crc32c"` and the lines. The generation is the journal's number, the
// sequence counts from 0, and a journal ends where the next frame is not the next one of its generation; a whole
// frame further on means that one was damaged, and the store does not open. Each journal's first frame tells how many
// frames the one before it has, so that a loss at the end of that one is seen too:
//
//	{"journal":1,"previous":0,"frames":0,"sync":"always","boot":"","crc32c":"82c45a35"}
//
// A deletion is {"delete":"s","first":"…","deletions":1,"crc32c":"…"}, where first is the CRC-32C of the first line
// that goes, or "none"; it may be missing. A state is the line that its file has, with "made":true where the change made
// the stream's file. The file is extended with written zeros in steps of 256 KiB and filled in place, for
// then most syncs need not write the file's own metadata, and there is room for a deletion when the disk is full; a
// frame as long as a step extends it by itself. The folders testdata/1 and testdata/2 pin all that, byte for byte.
//
// # Who may rely on what
//
// The order is: journal, sync, apply, publish. A line is written to its stream's file only when it is durable in the
// journal, so nobody who reads the file, tail -f among them, meets an event that can be lost. And a journal goes only
// when all that it names is durable in its place. Hence: a stream that no journal names has no unsynced byte, and a
// bad line in it, the last one included, is damage and not the trace of a crash.
//
// Applying could wait until the caller is answered, and be one write for many events of a stream. What that can give
// was measured by leaving it out, the look at the file's size with it: 15 % more events a second of 64 connections to
// 64 streams, 5 to 9 % of 64 to one. What it would take is that a full disk, a limit for files and a file that somebody
// changed are known only when nobody can be told any more, and that readers and tail -f wait for it. So it is before.
//
// # Syscall by syscall
//
// What a crash (of the process, the machine, or its power) leaves at each point stands behind it. "Sync" is
// fdatasync(2).
//
// Start, before anything else:
//
//	mkdir(DIR), fsync(its parent)       no folder, or an empty one
//	mkdir(streams), mkdir(journal), fsync(streams), fsync(DIR)
//	openat(format.new), pwrite, fdatasync, rename(format.new, format), fsync(DIR)
//	                                    where there is a format, there is all
//	fsync(DIR, its folders), pwrite(deletions), fdatasync
//	                                    what a former process changed and did not sync; then the journals are replayed
//
// The first append after that, and the first when a journal is full:
//
//	openat(deletions.new), pwrite, fdatasync, rename(deletions.new, deletions), fsync(DIR)
//	                                    only the very first: a folder without it has seen none
//	openat(journal/N, O_CREAT|O_TRUNC)  an empty journal, or none: it is ignored
//	pwrite first frame, pwrite zeros    the same, or one without a stream
//	fdatasync, fsync(DIR, journal)      from here on it survives, and what a former start did not come to sync
//
// Append, of any number of streams:
//
//	pwrite(journal, frame)              part of a frame: it is no frame. The events were not acknowledged
//	fdatasync(journal)                  from here on the events survive; replay applies them
//	openat(streams/s.json, O_CREAT)     only for a new stream: an empty file, or none; replay makes it
//	pwrite(streams/s.json, lines)       part of the lines, or holes: replay writes them again
//	(publish)                           followers and readers see them, the caller is answered
//
// A state comes behind the lines in the frame, and nothing of it is applied but in memory.
//
// Delete: the same with the record {"delete":…}, and unlink in place of open and write. That the name is gone becomes
// durable with the next checkpoint; until then replay removes it again. Streams that are deleted at once share a frame,
// with nothing else in it: a file that is gone cannot be brought back. So where the first cannot be removed the frame
// is taken back, and where a later one cannot, which no file by itself is a reason for, the outcome is open and the
// store ends as after a failed sync. Where the disk has no room for a journal, and
// there is none, it is unlink and fsync(streams) alone, and before that, for a stream that has a state, rename of that
// to state/.deleted and fsync(state): the next start then goes on.
//
// Checkpoint, in the background, one journal at a time and in order:
//
//	fdatasync(streams/s.json), …        for each stream that the journal names; replay would write the same
//	syncfs(streams)                     on Linux, where one of them was closed with unsynced bytes since; in the place of
//	                                    all these, where it names 256 streams or more
//	openat(state/.new), pwrite, fdatasync, rename(state/.new, state/NAME.json)
//	                                    for each state that changed, before all that; where there is no room it is
//	                                    tried again, and the journal stays
//	fsync(state)
//	pwrite(deletions), fdatasync        where there were any
//	fsync(streams)                      the names; from here on the journal is not needed
//	unlink(journal/N)                   it may come back: all later ones are still there, and replaying all is right
//	fsync(journal)                      it is gone; only now may the next one go
//
// Files are synced here and, but for what is taken back, nowhere else: no append waits for a sync of another stream's
// file. There may be more streams in use than a process may have files open, so a file is closed with unsynced bytes
// in it where too many are, and opened again for its sync. Linux tells an error that it met in between, writing them
// back, to who syncs the file next, but forgets it with the inode when memory is short. The file system does not
// forget: syncfs tells of any error since a folder was opened, from version 5.8 on. It writes what others have on that
// file system, too, and fails for an error that was theirs; so a journal of a few streams has it only where a file was
// closed. Elsewhere the sync of the file that was opened again has to do.
//
// Where a journal names many streams it is called for all of them: 10,000 files that grew take 3 to 19 s with a sync
// each, for each of these waits for a commit of the file system's own journal, and 0.4 s with one; 5,000 files 8 s and
// 1 s where somebody else has written 500 MB to that file system (ext4 with a journal, 2 cores, others at work). It is trusted
// alone on the file systems on which a conversion trusts it.
//
// A journal names up to 65,536 streams, and up to 16,384 files stay open. So a journal is full of the appends to
// 10,000 streams, made in turn, long before it is full of their names, and their files are synced once in twenty
// appends and not at each.
//
// Taking back, when writing or applying fails (a full disk): what was applied is cut off the streams' files and they
// are synced, new files are removed and their folder is synced, then the journal is cut to where its zeros ended, the
// frame's place in them is zeros again, the journal is synced, and then the append fails. A crash in between leaves
// either the frame, and replay applies what was not acknowledged, or nothing. What failed for one stream alone (no
// inode for its file, a limit for files, somebody's folder in its place) is one stream's failure: the others are
// written again, in a frame of their own in the same place. After a file that could not be made, streams/.probe is
// made and removed before each frame; while that fails, new streams are refused without one.
//
// Before the disk is called full it gets back what the journals take: the current one is left to its checkpoint, too,
// all of them are checkpointed, and the commit begins a new one. So it is when a journal meets a limit for files, as
// ulimit -f sets it.
//
// Convert, of the files {"events":[…]} of the first implementation, at the start of a folder that has no format,
// before it gets one. Each had its stream's raw name, or that as encodeURIComponent escapes it where its first event
// says so. For each of them:
//
//	openat(NAME.json.converting), pwrite, fdatasync
//	(a damaged one)                     its events before the damage are converted, it is copied to
//	                                    NAME.damaged-POSITION, and the stream is marked as damaged
//
// Then, and after each thousand of them or 64 MiB, and where the disk is full or a name is needed:
//
//	syncfs(streams)                     in the place of the fdatasync, from the 33rd file on
//	rename(NAME.json.converting, NAME.json), …
//	                                    the older file has gone, where it had this name
//	fsync(streams)                      where some had other names: the new ones are durable
//	unlink(raw name), …                 durable with the fsync(streams) before the format
//
// Syncfs makes that some eight times as fast. It is trusted alone only where it waits for the disk as fsync does, and
// tells of each error since streams/ was opened, before the first write: on ext4, XFS and btrfs, from Linux 5.8 on.
// FUSE and 9p hand no such call on, overlayfs keeps its errors to itself, and elsewhere each file is synced. An older
// file goes only behind it.
//
// Nothing is appended before there is a format, so after a crash all of it is done again, and what was done comes out
// the same. One stream's name may be another's raw name, as %41.json, which A is to have, may be the older file of
// "%41": that is converted before, and has left the place durably. No file is written over that has other events than
// it is to get; the older one stays then, and the log says so. A folder in which any of this fails, as it cannot be
// written, is not opened. In a folder that has a format an older file is a damaged one: without the format, which may
// be removed while no server runs, the next start converts it.
//
// Repair, of a stream's file, once a copy of all of it is durable:
//
//	openat(NAME.json.cut), pwrite, fdatasync    what stands before the damage
//	rename(NAME.json.cut, NAME.json), fsync(streams)
//	                                    a new file, for the name may have been a link to another stream's
//	unlink(damaged/NAME.json), fsync(damaged)   it takes appends again
//
// A crash in between leaves the mark, and the next repair does what is left.
//
// Replay, at the start. First what the process that ended saw done and may not be:
//
//	fsync(journal, streams, damaged)    what was removed does not come back: a journal, a stream whose deletion saw its
//	                                    sync fail, a mark
//	pwrite(last frame), fdatasync       it is durable before it is applied: else a crash now could leave a part of it
//
// Then for each stream that the journals name, from its last deletion on:
//
//	unlink(streams/s.json)              if there was a deletion, and the file is of a life before it
//	pwrite(streams/s.json, lines)       all of the journal's lines, behind the line before their first, which
//	                                    must be whole
//	ftruncate, fdatasync                what then follows is kept as NAME.torn-…, but for whole lines that go on in
//	                                    order: they were durable before, and the journal is an older copy
//	syncfs                              in the place of these syncs where the journals name 256 streams or more; and
//	                                    where a journal's end is torn: the frame there, if it was damaged since, named
//	                                    streams that nobody knows of now
//	fsync(streams)
//	unlink(journal/N), fsync(journal)   each, the oldest first
//
// Nothing whole is written over. Where the file has other events in the place of the journal's lines, or goes on from
// an event of a later time, the journal's are kept as NAME.unreplayed-…, and the file stays; where there was a
// deletion, and the file's events are neither of a life that was deleted nor of the one after, it is renamed to
// NAME.deleted-0. The stream is then marked as damaged. So is one whose file cannot be opened or read; the next start
// tries again to add what was kept of it.
//
// A crash in between leaves the journals, and doing it again is harmless.
//
// # When a sync fails
//
// Then nobody knows what the disk has, and asking again would get a yes that means nothing (Rebello et al., "Can
// Applications Recover from fsync Failures?", USENIX ATC 2020). The append that saw it has an open outcome, no append
// is accepted any more, and the next start writes again what the journal has, from its first to its last line, and
// syncs that. It is so for folders, too, whatever they were synced for; but the next start cannot write a name again,
// and syncs the folder: names are the file system's own, and one that cannot write these ends itself.
//
// # What this rests on
//
// A sync is one: fdatasync and fsync return when the data, the size and, for a folder, the names survive the loss of
// power. Writing a sector again with the same bytes in front does not lose those bytes ("powersafe overwrite":
// sqlite.org/psow.html). Nobody else writes to the folder. Cut off exactly at a line's end, a stream that no journal
// names looks like a shorter stream; any other damage is seen.
//
// A stream whose file somebody removed, or replaced, takes no appends. Whether the file is still the one at its path
// is asked when the ctime of streams/ is not the one at which it was asked last, or is too young to tell. So it goes
// unseen of a file that a symbolic link in streams/ leads to, and where the ctime is made by another machine's clock
// that is behind. A file that is overwritten with as many bytes is not noticed at the next append, but when it is
// read.
//
// # Where things are
//
//	store.go, folder.go        opening and closing, the folder and its format
//	commit.go, collect.go      a commit, and what is asked before it has a frame
//	journal.go, checkpoint.go  frames, and what lets a journal go
//	plan.go, replay.go         what the journals say at a start, and doing it
//	logs.go, log.go, line.go   the open files, reading in one, a line and its checksum
//	read.go, name.go           reading, stat and list; names of streams and of files
//	state.go, trim.go          what streams have beside events, and giving room back
//	delete.go                  removing what a stream has, and how many times that was done
//	damage.go, aside.go        the marks of damage, and what is set aside
//	verify.go, repair.go       looking at a folder, and mending it
//	older.go, fs.go            the older form, and all that the package asks of a file system
package disk
