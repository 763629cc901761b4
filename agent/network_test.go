// The network's meaning and the kernel's layouts; no card of this machine is touched.

package main

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"bhatti/agent/wire"
)

var testNetwork = wire.Network{
	MAC: "02:11:22:33:44:55", Address: "10.1.2.3", Prefix: 20, Gateway: "10.1.15.254", DNS: []string{"10.0.0.1", "fd00::1"},
	MTU: 1500,
}

func TestTheKernelsLayoutsAreRight(t *testing.T) {
	var route routeEntry
	for name, got := range map[string][2]uintptr{
		"ifreq":      {unsafe.Sizeof(interfaceRequest{}), 40},
		"sockaddr":   {unsafe.Sizeof(socketAddress{}), 16},
		"rtentry":    {unsafe.Sizeof(route), 120},
		"rt_dst":     {unsafe.Offsetof(route.destination), 8},
		"rt_gateway": {unsafe.Offsetof(route.gateway), 24},
		"rt_genmask": {unsafe.Offsetof(route.netmask), 40},
		"rt_flags":   {unsafe.Offsetof(route.flags), 56},
		"rt_metric":  {unsafe.Offsetof(route.metric), 80},
		"rt_dev":     {unsafe.Offsetof(route.device), 88},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, not %d", name, got[0], got[1])
		}
	}
}

func TestANetworkIsUnderstood(t *testing.T) {
	got, err := parseNetwork(testNetwork)
	want := identity{
		mac: [6]byte{2, 0x11, 0x22, 0x33, 0x44, 0x55}, address: [4]byte{10, 1, 2, 3}, netmask: [4]byte{255, 255, 240, 0},
		gateway: [4]byte{10, 1, 15, 254}, hasGateway: true, mtu: 1500,
	}
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	alone := testNetwork
	alone.Prefix = 32
	if got, err := parseNetwork(alone); err != nil || !got.isGatewayFar || got.netmask != [4]byte{255, 255, 255, 255} {
		t.Errorf("%+v %v", got, err)
	}
}

func TestABadNetworkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.Network){
		"no MAC":          func(n *wire.Network) { n.MAC = "" },
		"a group's MAC":   func(n *wire.Network) { n.MAC = "01:00:00:00:00:01" },
		"a long MAC":      func(n *wire.Network) { n.MAC = "02:00:00:00:00:00:00:01" },
		"a name":          func(n *wire.Network) { n.Address = "host" },
		"an IPv6 address": func(n *wire.Network) { n.Address = "fd00::2" },
		"prefix 0":        func(n *wire.Network) { n.Prefix = 0 },
		"prefix 33":       func(n *wire.Network) { n.Prefix = 33 },
		"a bad gateway":   func(n *wire.Network) { n.Gateway = "10.0.0" },
		"a bad server":    func(n *wire.Network) { n.DNS = []string{"x\nnameserver 1.1.1.1"} },
		"no MTU":          func(n *wire.Network) { n.MTU = 0 },
	} {
		network := testNetwork
		change(&network)
		if got, err := parseNetwork(network); err == nil || asError(err).Code != wire.Invalid {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestTheFirstVirtioCardIsTaken(t *testing.T) {
	class := t.TempDir()
	for name, driver := range map[string]string{"lo": "", "dummy0": "dummy", "eth1": "virtio_net", "eth0": "virtio_net"} {
		device := filepath.Join(class, name, "device")
		if err := os.MkdirAll(device, 0o755); err != nil {
			t.Fatal(err)
		}
		if driver != "" {
			if err := os.Symlink("/drivers/"+driver, filepath.Join(device, "driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if name, err := networkCard(class); name != "eth0" || err != nil {
		t.Errorf("%q %v", name, err)
	}
	if name, err := networkCard(t.TempDir()); name != "" || err != nil {
		t.Errorf("%q %v", name, err)
	}
}
