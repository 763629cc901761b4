/** Load order and pruning on a small modules.dep. */
import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { loadOrder, moduleName, parseModulesBuiltIn, parseModulesDep } from "./modules.ts"

// As depmod writes it: every line names all that is needed, directly or not, the first to load last.
const dependencies = parseModulesDep(`kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/crypto/xts.ko.xz:
kernel/crypto/lzo.ko.xz: kernel/lib/lzo_compress.ko.xz
kernel/lib/lzo_compress.ko.xz:
`)

const builtIn = parseModulesBuiltIn(`kernel/drivers/virtio/virtio_pci.ko
kernel/net/ipv9/ipv9.ko
`)

test("a module, or a folder, that is a part of the kernel itself needs no file", () => {
  expect(loadOrder({ dependencies, builtIn }, ["virtio-pci", "kernel/net/ipv9/", "virtio"])).toEqual(
    loadOrder({ dependencies, builtIn }, ["virtio"]),
  )
})

test("what is needed loads before what needs it, each file once", () => {
  expect(loadOrder({ dependencies, builtIn }, ["virtio_net", "virtio"])).toEqual([
    "kernel/drivers/virtio/virtio_ring.ko",
    "kernel/drivers/virtio/virtio.ko",
    "kernel/net/core/failover.ko",
    "kernel/drivers/net/net_failover.ko",
    "kernel/drivers/net/virtio_net.ko",
  ])
})

test("a dash and an underscore in a module's name are the same", () => {
  expect(loadOrder({ dependencies, builtIn }, ["virtio_rng"])).toEqual(
    loadOrder({ dependencies, builtIn }, ["virtio-rng"]),
  )
})

test("a folder stands for all its modules and what they need", () => {
  expect(loadOrder({ dependencies, builtIn }, ["kernel/crypto/"])).toEqual([
    "kernel/crypto/xts.ko.xz",
    "kernel/lib/lzo_compress.ko.xz",
    "kernel/crypto/lzo.ko.xz",
  ])
})

test("a wish that the kernel cannot fulfil is an error and not a smaller kernel", () => {
  expect(() => loadOrder({ dependencies, builtIn }, ["floppy"])).toThrow(AppError)
  expect(() => loadOrder({ dependencies, builtIn }, ["kernel/floppy/"])).toThrow(AppError)
})

test("a module's name has neither folder nor ending", () => {
  expect(moduleName("kernel/crypto/xts.ko.xz")).toBe("xts")
  expect(moduleName("kernel/drivers/char/hw_random/virtio-rng.ko")).toBe("virtio_rng")
})
