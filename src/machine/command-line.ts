/**
 * QEMU's arguments as a pure function. A template's boot and all its clones must describe the same machine, device
 * for device: the saved state is loaded by position and name. `Role` lists the permitted differences.
 *
 * QEMU gets every file as a descriptor, so it needs no path and no permission in the file system. `descriptors`
 * fixes their numbers, in the order in which the new process inherits them.
 */

export type Accelerator = "kvm" | "tcg"

export type MachineShape = {
  cpus: number
  memoryMib: number
  accelerator: Accelerator
  /** How the guest's network card is connected on the host. */
  network: "tap" | "user"
}

/**
 * The list of devices, by number: a state fits only the list that it was saved with, so former lists stay. 2 has
 * neither the kit disk nor a place for further disks.
 */
export const topologies = [2, 3] as const
export type Topology = (typeof topologies)[number]

/** The purpose of a start; it never changes the list of devices. */
export type Role =
  /** Boots from the image with shared memory, which is saved as a template. */
  | "template"
  /** Loads a saved state over a private mapping of a template's memory, and runs as soon as that is done. */
  | "clone"
  /** Like a clone, but without a monitor: machines are forked from it, and each makes its own (zygotes.ts). */
  | "zygote"
  /** Boots from a sandbox's own disk, with private memory. */
  | "boot"

/**
 * Descriptors of the QEMU process, by number. Those that a role does not use (`state` is a clone's, `kernel` and
 * `initramfs` a boot's, `templateDisk` not a template's own) are /dev/null, and so is `tap` without a TAP device, and
 * `kitDisk` in topology 2.
 */
export const descriptors = {
  memory: 3,
  qmpSocket: 4,
  agentSocket: 5,
  overlayDisk: 6,
  templateDisk: 7,
  baseDisk: 8,
  tap: 9,
  state: 10,
  kernel: 11,
  initramfs: 12,
  saved: 13,
  shared: 14,
  stderr: 15,
  kitDisk: 16,
} as const

/** A zygote's further ones (zygote/zygote.h), which follow. */
export const zygoteDescriptors = { library: 17, control: 18 } as const

/** QEMU appends its device states here: the descriptor keeps its offset. */
export const savedStateFile = "/dev/fdset/4"

/** Under software emulation each QEMU has its own translation cache. */
const translationCacheMib = 64

/**
 * Memory for bulk data that a machine shares with this host, separate for each machine
 * (docs/decisions/0020-bulk-bytes-in-shared-memory.md).
 */
export const sharedMemoryMib = 2

export const probeMemoryMib = 256

/** The name by which the guest finds the kit among its disks. It must equal kitSerial in agent/kit.go. */
export const kitSerial = "bhatti-kit"

/** Kept for diagnosis: the last bytes the guest wrote to its console. */
export const consoleRingBytes = 65_536

const commonKernelArguments = [
  "console=ttyS0",
  "quiet",
  "loglevel=4",
  "panic=-1",
  "reboot=t",
  "root=/dev/vda",
  "rw",
  "net.ifnames=0",
  "random.trust_cpu=on",
  "audit=0",
]

/**
 * Makes the guest zero freed memory, so that a snapshot contains no deleted data. The kernel also zeroes all of its
 * memory at its start: a template's zeros are not stored, but a booted machine would take its full size on the
 * host.
 */
const templateKernelArguments = ["init_on_free=1"]

/**
 * Guest kernel features switched off under emulation; each was chosen by counting the instructions of one command
 * (docs/decisions/0007-guests-under-emulation.md).
 */
const emulatedKernelArguments = [
  "mitigations=off",
  // With random addresses QEMU would translate the same libraries again for each process.
  "norandmaps",
  "randomize_kstack_offset=off",
  "hardened_usercopy=off",
  "init_on_alloc=0",
  "lsm=landlock,yama",
  "psi=0",
  "tsc=reliable",
  // Clears bit 112 of Linux's feature list, "rep" instructions are fast: emulated ones are not.
  "clearcpuid=112",
  // In the agent's environment: Go's runtime signals itself when a function takes long, and under emulation every
  // function does.
  "GODEBUG=asyncpreemptoff=1",
]

export function kernelArgumentsOf(role: "template" | "boot", accelerator: Accelerator): string {
  return [
    ...commonKernelArguments,
    ...(role === "template" ? templateKernelArguments : []),
    ...(accelerator === "tcg" ? emulatedKernelArguments : []),
  ].join(" ")
}

/**
 * Without ERMS and FSRM, kernel and C library avoid "rep movsb", which QEMU executes byte by byte. The other
 * features cost only the kernel: a fifth level of page tables, and guards against its own bugs.
 */
export function cpuModel(accelerator: Accelerator): string {
  return accelerator === "kvm" ? "host" : "max,-erms,-fsrm,-la57,-smap,-smep,-umip"
}

const board = "q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off"
const systemCallFilter = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

/** Arguments of a machine without disks, which only prints on its console that a guest boots under KVM. */
export function probeArguments(): string[] {
  return [
    ["-nodefaults"],
    ["-no-user-config"],
    ["-no-reboot"],
    ["-display", "none"],
    ["-machine", board],
    ["-accel", "kvm"],
    ["-cpu", cpuModel("kvm")],
    ["-m", `${probeMemoryMib}M`],
    ["-sandbox", systemCallFilter],
    ["-serial", "stdio"],
    ["-kernel", `/proc/self/fd/${descriptors.kernel}`],
    ["-initrd", `/proc/self/fd/${descriptors.initramfs}`],
    ["-append", "console=ttyS0 loglevel=6 panic=-1 reboot=t bhatti.probe"],
  ].flat()
}

/**
 * A bridge whose slots take disks while the machine runs. A PCIe root port for each disk would cost a start about a
 * millisecond each (docs/decisions/0028-a-kit-and-one-bridge.md). Without `shpc` the firmware gives it no addresses.
 */
const plugBridge = "pci-bridge,id=plug,bus=pcie.0,addr=0x10,chassis_nr=1,shpc=on,msi=off"

export type MachineOptions = {
  topology: Topology
  /** Arguments of its further disks, which topology 2 has none of. */
  disks?: readonly string[]
  /** Added to those of every boot. */
  kernelArguments?: string[]
}

/** The arguments after the program's name. `name` identifies the machine in the list of processes. */
export function qemuArguments(
  shape: MachineShape,
  role: Role,
  name: string,
  { topology, disks = [], kernelArguments = [] }: MachineOptions,
): string[] {
  const isClone = role === "clone" || role === "zygote"
  const isTemplate = role === "template"
  const accelerator = shape.accelerator === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${translationCacheMib}`

  const drive = (name: string, set: number, isReadOnly: boolean) =>
    `driver=file,node-name=${name}-file,filename=/dev/fdset/${set},read-only=${isReadOnly ? "on" : "off"},auto-read-only=off,locking=off,drop-cache=off,discard=unmap`

  return [
    ["-name", name],
    ["-nodefaults"],
    ["-no-user-config"],
    ["-no-reboot"],
    ["-display", "none"],
    ["-vga", "none"],
    ["-machine", `${board},mem-merge=off,dump-guest-core=off,suppress-vmdesc=on,memory-backend=ram`],
    ["-accel", accelerator],
    ["-cpu", cpuModel(shape.accelerator)],
    ["-smp", `${shape.cpus}`],
    ["-m", `${shape.memoryMib}M`],
    [
      "-object",
      `memory-backend-file,id=ram,size=${shape.memoryMib}M,mem-path=/proc/self/fd/${descriptors.memory},share=${isTemplate ? "on" : "off"}`,
    ],
    [
      "-object",
      `memory-backend-file,id=shared,size=${sharedMemoryMib}M,mem-path=/proc/self/fd/${descriptors.shared},share=on`,
    ],
    ["-sandbox", systemCallFilter],
    ["-global", "migration.send-configuration=off"],

    ["-chardev", `socket,id=qmp,fd=${descriptors.qmpSocket},server=on,wait=off`],
    ...(role === "zygote" ? [] : [["-mon", "chardev=qmp,mode=control"]]),
    ["-chardev", `ringbuf,id=console,size=${consoleRingBytes}`],
    ["-serial", "chardev:console"],

    ["-add-fd", `fd=${descriptors.overlayDisk},set=1`],
    ["-add-fd", `fd=${descriptors.templateDisk},set=2`],
    ["-add-fd", `fd=${descriptors.baseDisk},set=3`],
    ["-add-fd", `fd=${descriptors.saved},set=4`],
    // QEMU closes unused descriptors when its monitor's client disconnects, as a restarted daemon does.
    ["-chardev", `file,id=saved,path=${savedStateFile}`],
    ["-blockdev", drive("base", 3, true)],
    ["-blockdev", "driver=raw,node-name=base,file=base-file,read-only=on"],
    ...(isTemplate
      ? []
      : [
          ["-blockdev", drive("template", 2, true)],
          ["-blockdev", "driver=qcow2,node-name=template,file=template-file,backing=base,read-only=on"],
        ]),
    ["-blockdev", drive("overlay", 1, false)],
    [
      "-blockdev",
      `driver=qcow2,node-name=root,file=overlay-file,backing=${isTemplate ? "base" : "template"},discard=unmap,detect-zeroes=unmap`,
    ],
    // A write that runs out of space on the host pauses the machine and is retried when it resumes; an error would
    // damage the guest's file system.
    ["-device", "virtio-blk-pci,id=disk0,drive=root,num-queues=1,write-cache=on,werror=enospc,rerror=report"],

    // A clone's vCPUs must not run before the channel is connected: the guest would see it close and open again.
    ["-chardev", `socket,id=agent,fd=${descriptors.agentSocket},server=on,wait=${isClone ? "on" : "off"}`],
    ["-device", "virtio-serial-pci,id=serial0,max_ports=2"],
    ["-device", "virtserialport,bus=serial0.0,nr=1,chardev=agent,name=bhatti.agent"],

    [
      "-netdev",
      shape.network === "tap" ? `tap,id=net0,fd=${descriptors.tap},vhost=off` : "user,id=net0,restrict=on",
    ],
    [
      "-device",
      "virtio-net-pci,id=nic0,netdev=net0,mac=02:00:00:00:00:01,romfile=,guest_announce=off,mq=off",
    ],

    // QEMU refuses to load its state without "master".
    ["-device", "ivshmem-plain,id=shared0,memdev=shared,master=on"],

    ...(topology === 2
      ? []
      : [
          ["-add-fd", `fd=${descriptors.kitDisk},set=5`],
          ["-blockdev", drive("kit", 5, true)],
          ["-blockdev", "driver=raw,node-name=kit,file=kit-file,read-only=on"],
          ["-device", `virtio-blk-pci,id=kit0,drive=kit,num-queues=1,serial=${kitSerial}`],
          ["-device", plugBridge],
          [...disks],
        ]),

    ...(role === "clone" || role === "zygote"
      ? [["-incoming", `fd:${descriptors.state}`]]
      : [
          ["-kernel", `/proc/self/fd/${descriptors.kernel}`],
          ["-initrd", `/proc/self/fd/${descriptors.initramfs}`],
          ["-append", [kernelArgumentsOf(role, shape.accelerator), ...kernelArguments].join(" ")],
        ]),
  ].flat()
}
