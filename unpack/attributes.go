// Extended attributes, as archives have them in PAX records. The disk's are written by debugfs, which takes names and
// values from anybody, so both are checked here.

package main

import (
	"encoding/binary"
	"sort"
	"strings"
)

const (
	paxAttribute = "SCHILY.xattr."
	// attributeBytesMax is what ext4 has room for beside a file: a block, less its headers.
	attributeBytesMax = 3900
	attributeOverhead = 20 // of each, with padding
	accessList        = "system.posix_acl_access"
	defaultList       = "system.posix_acl_default"
)

// attributesOf returns nil if there are none. Those that other kinds of systems use are left out.
func attributesOf(records map[string]string, what kind, file string) (map[string]string, error) {
	var found map[string]string
	size := 0
	for key, value := range records {
		name := strings.TrimPrefix(key, paxAttribute)
		if name == key || !isKept(name, what) {
			continue
		}
		if len(name) > nameBytesMax || strings.ContainsAny(name, "\n\r\x00") {
			return nil, refuse("bad_attribute", "%.200q has an attribute with a bad name", file)
		}
		if (name == accessList || name == defaultList) && !isAccessList(value) {
			return nil, refuse("bad_attribute", "%.200q has a bad access list", file)
		}
		if size += len(name) + len(value) + attributeOverhead; size > attributeBytesMax {
			return nil, refuse("too_many_attributes", "the attributes of %.200q take more than %d bytes", file,
				attributeBytesMax)
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = value
	}
	return found, nil
}

func isKept(name string, what kind) bool {
	space, rest, _ := strings.Cut(name, ".")
	if rest == "" {
		return false
	}
	switch space {
	case "user":
		// The kernel has them on no other kind.
		return what == aFile || what == aFolder
	case "security":
		return true
	case "trusted":
		return !strings.HasPrefix(rest, "overlay.")
	}
	return name == accessList && what != aSymlink || name == defaultList && what == aFolder
}

// isAccessList looks at the format that programs see: a version, then entries of eight bytes.
func isAccessList(value string) bool {
	const version, entryBytes = 2, 8
	if len(value) < 4 || (len(value)-4)%entryBytes != 0 || binary.LittleEndian.Uint32([]byte(value)) != version {
		return false
	}
	for at := 4; at < len(value); at += entryBytes {
		switch binary.LittleEndian.Uint16([]byte(value[at:])) {
		case 0x01, 0x02, 0x04, 0x08, 0x10, 0x20: // owner, user, group, group by id, mask, others
		default:
			return false
		}
		if binary.LittleEndian.Uint16([]byte(value[at+2:])) > 7 {
			return false
		}
	}
	return true
}

func sortedNames(attributes map[string]string) []string {
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
