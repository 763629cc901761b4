// The JSON messages of files, connections and ports; the twin of src/guest/files.ts and src/guest/dial.ts.

package wire

// FileBytesMax bounds one written file, EntriesMax one listing, PortsMax the list of ports.
const (
	FileBytesMax = 104857600
	EntriesMax   = 100000
	PortsMax     = 2048
)

// FileRead reads a file, from Offset and at most Limit bytes. Shared is the region of the shared memory for its bytes.
type FileRead struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Limit  *int64 `json:"limit"`
	Shared *int64 `json:"shared"`
}

// FileWrite replaces a file.
type FileWrite struct {
	Path    string  `json:"path"`
	Mode    *string `json:"mode"`
	Size    *int64  `json:"size"`
	Parents bool    `json:"parents"`
	// Owner of the file and of directories created for it; the default user if omitted.
	Owner *FileOwner `json:"owner"`
	// Attributes are set beside those of the replaced file.
	Attributes map[string][]byte `json:"attributes"`
}

// FileFindOwner looks up a user and group in the guest.
type FileFindOwner struct {
	Owner string `json:"owner"`
}

// FileAttributes changes extended attributes. Values are base64 on the wire.
type FileAttributes struct {
	Path   string            `json:"path"`
	Set    map[string][]byte `json:"set"`
	Remove []string          `json:"remove"`
}

// FileOwner are the numbers of a user and a group.
type FileOwner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// FileNamed is the request of an operation that takes a path, and of file_remove.
type FileNamed struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive"`
}

// ArchiveWrite unpacks below a directory. With Exact entries keep their owners, and all attributes that ArchiveRead
// packs with it. Root replaces the first part of each name.
type ArchiveWrite struct {
	Path  string     `json:"path"`
	Owner *FileOwner `json:"owner"`
	Exact bool       `json:"exact"`
	Root  *string    `json:"root"`
}

// ArchiveRead packs a file or directory. Shared is the region of the shared memory for its bytes. With Sparse holes are
// packed as such, with Exact file capabilities and access lists too.
type ArchiveRead struct {
	Path   string `json:"path"`
	Sparse bool   `json:"sparse"`
	Exact  bool   `json:"exact"`
	Shared *int64 `json:"shared"`
}

// FileMkdir makes a directory.
type FileMkdir struct {
	Path    string  `json:"path"`
	Parents bool    `json:"parents"`
	Mode    *string `json:"mode"`
	// Owner of new files; the default user if omitted.
	Owner *FileOwner `json:"owner"`
}

// FileMove renames.
type FileMove struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// FileInfo describes a file.
type FileInfo struct {
	Name           string `json:"name"`
	NameIsLossy    bool   `json:"name_is_lossy,omitempty"`
	Size           int64  `json:"size"`
	Mode           string `json:"mode"`
	Type           string `json:"type"`
	Owner          string `json:"owner"`
	Group          string `json:"group"`
	ModifiedUnixMs int64  `json:"modified_unix_ms"`
	Target         string `json:"target,omitempty"`
	// Version differs whenever the content may differ.
	Version string `json:"version,omitempty"`
	// Allocated is how many bytes of the disk the content takes: a sparse file's are less than its size.
	Allocated *int64 `json:"allocated,omitempty"`
	// Attributes are the extended attributes user.*; only in the answer of file_stat.
	Attributes map[string][]byte `json:"attributes,omitempty"`
}

// File is the first message of file_read and the answer of file_stat.
type File struct {
	File FileInfo `json:"file"`
}

// FileBytes answers file_read and file_write.
type FileBytes struct {
	Bytes int64 `json:"bytes"`
}

// Listed answers file_list.
type Listed struct {
	Entries   int  `json:"entries"`
	Truncated bool `json:"truncated"`
}

// Archived answers archive_read and archive_write. Bytes are those of the files' contents.
type Archived struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

// LeftOutNamesMax limits the names that an archive lists; all are counted.
const LeftOutNamesMax = 20

// LeftOut is the comment in an archive, at the second entry for its own directory, that lists the files missing
// from it.
type LeftOut struct {
	Count int           `json:"left_out"`
	Names []LeftOutName `json:"names"`
}

// LeftOutName is a file that was left out.
type LeftOutName struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Dial connects to a port of the guest.
type Dial struct {
	Port int `json:"port"`
}

// Connected is sent once the connection is established.
type Connected struct {
	Connected Empty `json:"connected"`
}

// Port is a listening port.
type Port struct {
	Port    int    `json:"port"`
	Address string `json:"address"`
}

// Ports answers ports.
type Ports struct {
	Ports []Port `json:"ports"`
}
