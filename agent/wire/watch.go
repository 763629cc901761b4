// The JSON messages of watches; the twin of src/guest/file-watch.ts.

package wire

// FileWatch watches a directory, with Recursive everything below it.
type FileWatch struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive"`
}

// FileWatching answers file_watch.
type FileWatching struct {
	Watch string `json:"watch"`
}

// FileWatchRead asks for the events after a number. With Wait it is answered when there are some.
type FileWatchRead struct {
	Watch string `json:"watch"`
	After int64  `json:"after"`
	Wait  bool   `json:"wait"`
}

// FileEvents answers file_watch_read. The last event has the number Next, the others those before it.
type FileEvents struct {
	Events []FileEvent `json:"events"`
	Next   int64       `json:"next"`
	// Ended says why no further event follows.
	Ended string `json:"ended,omitempty"`
}

// The types of a FileEvent.
const (
	FileCreated = "create"
	FileWritten = "write"
	FileRemoved = "remove"
	FileRenamed = "rename"
	FileChanged = "chmod" // mode, owner, times or extended attributes
	EventsLost  = "lost"
)

// FileEvent is a change below the watched directory. Paths are relative to it; "." is the directory itself.
type FileEvent struct {
	Type        string `json:"type"`
	Path        string `json:"path"`
	PathIsLossy bool   `json:"path_is_lossy,omitempty"`
	// To is the new path of a renamed file.
	To          string `json:"to,omitempty"`
	IsDirectory bool   `json:"directory,omitempty"`
	// Reason says why events were lost.
	Reason string `json:"reason,omitempty"`
}
