// Extended attributes, on the filesystem of the tests if it has them.

package main

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"bhatti/agent/wire"
)

func attributesHere(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Setxattr(folder, "user.probe", []byte("x"), 0); err != nil {
		t.Skipf("no attributes here: %v", err)
	}
	_ = syscall.Removexattr(folder, "user.probe")
	return folder
}

func encoded(attributes map[string]string) map[string]string {
	result := map[string]string{}
	for name, value := range attributes {
		result[name] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	return result
}

func TestAttributesAreSetReadAndRemoved(t *testing.T) {
	folder := attributesHere(t)
	h := personalised(t)
	path := filepath.Join(folder, "file")
	want := map[string]string{"user.mime": "text/plain", "user.bytes": "\x00\xff", "user.empty": ""}
	if o := h.put("file_write", map[string]any{"path": path, "attributes": encoded(want)}, []byte("x")); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	expect := func(want map[string]string) {
		t.Helper()
		file := h.ask("file_stat", map[string]any{"path": path}).OK["file"].(map[string]any)
		got := map[string]string{}
		listed, _ := file["attributes"].(map[string]any)
		for name, value := range listed {
			got[name] = value.(string)
		}
		if !reflect.DeepEqual(got, encoded(want)) {
			t.Errorf("%v, not %v", got, encoded(want))
		}
	}
	expect(want)
	change := map[string]any{"path": path, "set": encoded(map[string]string{"user.mime": "a"}), "remove": []string{"user.empty", "user.none"}}
	if o := h.ask("file_attributes", change); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	delete(want, "user.empty")
	want["user.mime"] = "a"
	expect(want)
	h.put("file_write", map[string]any{"path": path, "attributes": encoded(map[string]string{"user.more": "b"})}, []byte("another"))
	want["user.more"] = "b"
	expect(want)
	for _, name := range []string{"trusted.x", "security.capability", "user.", "mime", "user.a=b"} {
		o := h.ask("file_attributes", map[string]any{"path": path, "set": encoded(map[string]string{name: "x"})})
		if o.Error == nil || o.Error.Code != wire.Invalid {
			t.Errorf("%s: %+v", name, o)
		}
	}
	large := h.ask("file_attributes", map[string]any{"path": path, "set": encoded(map[string]string{"user.large": string(make([]byte, 70000))})})
	if large.Error == nil || large.Error.Code != wire.LimitExceeded {
		t.Errorf("%+v", large)
	}
	expect(want)
}

func TestArchivesKeepAttributesOfUsersAndNoOthers(t *testing.T) {
	folder := attributesHere(t)
	h := personalised(t)
	from, to := filepath.Join(folder, "from"), filepath.Join(folder, "to")
	must(t, os.Mkdir(from, 0o755), os.WriteFile(from+"/file", []byte("x"), 0o644), os.WriteFile(from+"/plain", nil, 0o644))
	must(t, syscall.Setxattr(from, "user.folder", []byte("f"), 0), syscall.Setxattr(from+"/file", "user.bytes", []byte("\x00\xff"), 0))
	packed := h.ask("archive_read", map[string]any{"path": from})
	if o := h.put("archive_write", map[string]any{"path": to}, packed.output); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	for path, want := range map[string]map[string][]byte{
		"": {"user.folder": []byte("f")}, "/file": {"user.bytes": []byte("\x00\xff")}, "/plain": nil,
	} {
		if got := attributesAt(to + "/from" + path); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v", path, got)
		}
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	must(t, writer.WriteHeader(&tar.Header{Name: "evil", Mode: 0o644, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.ok": "1",
	}}), writer.Close())
	if o := h.put("archive_write", map[string]any{"path": to}, archive.Bytes()); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	list := make([]byte, 1000)
	count, err := syscall.Listxattr(to+"/evil", list)
	if err != nil || string(list[:count]) != "user.ok\x00" {
		t.Errorf("%q %v", list[:count], err)
	}
}
