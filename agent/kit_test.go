// The kit's disk among others, and the modules of an image and of the kit.

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func writeAll(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheKitIsFoundByItsSerialNumberAndNeverTheRootDisk(t *testing.T) {
	folder := t.TempDir()
	writeAll(t, folder, map[string]string{
		"vda/serial": kitSerial + "\n", "vdb/serial": "vol_1", "vdc/size": "1", "loop0/serial": kitSerial,
	})
	if name, err := findDisk(folder, kitSerial); name != "" || err != nil {
		t.Fatalf("found %q, %v", name, err)
	}
	writeAll(t, folder, map[string]string{"vdd/serial": kitSerial + "\n"})
	if name, err := findDisk(folder, kitSerial); name != "vdd" || err != nil {
		t.Fatalf("found %q, %v", name, err)
	}
}

func TestAnImageKeepsItsOwnModulesAndAKitOfAnotherKernelOffersNone(t *testing.T) {
	root, kit := t.TempDir(), t.TempDir()
	writeAll(t, root, map[string]string{"lib/modules/6.1.0/modules.dep": ""})
	writeAll(t, kit, map[string]string{"lib/modules/6.1.0/modules.dep": ""})
	for _, release := range []string{"6.1.0", "6.2.0"} {
		if err := offerModules(root, kit, release); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "lib/modules/6.2.0")); !os.IsNotExist(err) {
		t.Fatal("a directory was made")
	}
}

func TestTheKernelUsesTheKitsModprobeOnlyWhereTheImageHasNone(t *testing.T) {
	root := t.TempDir()
	setting := filepath.Join(root, "setting")
	writeAll(t, root, map[string]string{"setting": "as before", "sbin/modprobe": ""})
	read := func() string {
		text, err := os.ReadFile(setting)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if err := offerModprobe(root, setting); err != nil || read() != "as before" {
		t.Fatalf("%v, %q", err, read())
	}
	if err := os.Remove(filepath.Join(root, "sbin/modprobe")); err != nil {
		t.Fatal(err)
	}
	if err := offerModprobe(root, setting); err != nil || read() != kitFolder+"/bin/modprobe" {
		t.Fatalf("%v, %q", err, read())
	}
}
