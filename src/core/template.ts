/**
 * The template of an image in a size: booted once, warmed up, silenced and saved; every sandbox is a clone of it. It
 * never holds a user's data: it is made before there is a tenant. With a user's own start command it is that user's.
 */

import { AppError } from "@bhatti/contract/errors"
import type { GuestIdentity } from "@bhatti/contract/guest"
import { limits } from "@bhatti/contract/limits"
import { templateMib } from "../rules/host-memory.ts"
import { sleep } from "./clock.ts"
import type { Core, ForTemplate, OnHost } from "./core.ts"
import { checkSpace } from "./create-checks.ts"
import { installAuthority } from "./guest-defaults.ts"
import type { Template, TemplateDraft, TemplatePrograms, TemplateSpec } from "./host.ts"
import { imageDefaults } from "./identity.ts"
import { exercise } from "./run-in-guest.ts"
import { startAndHold } from "./start-command.ts"
import { unlessAborted } from "./unless-aborted.ts"

/** Boot takes 2 to 4 s on an idle host under software emulation; the rest is margin for busy hosts. */
const bootDeadlineMs = 120_000
const stepDeadlineMs = 30_000
const spaceEveryMs = 500

const templateIdentity: GuestIdentity = {
  hostname: "template",
  machineId: "0".repeat(32),
  env: {},
  network: null,
  growDisk: false,
}

/**
 * Run once in the template, so that every clone has their pages in memory and their paths cached. All clones share the
 * cost.
 */
const warmUp: string[][] = [
  ["true"],
  ["echo"],
  [
    "sh",
    "-c",
    "id; uname -a; date; env; ls / /workspace; cat /dev/null; head /dev/null; tail /dev/null; wc /dev/null",
  ],
  [
    "sh",
    "-c",
    "mkdir /tmp/w; touch /tmp/w/w; cp /tmp/w/w /tmp/w/v; mv /tmp/w/v /tmp/w/u; rm -r /tmp/w; sleep 0",
  ],
  [
    "sh",
    "-c",
    "grep x /dev/null; sed p /dev/null; sort /dev/null; find /workspace; tar --version; ps; which sh",
  ],
  ["bash", "-lc", "true"],
  ["sudo", "-n", "true"],
  ["git", "--version"],
  ["curl", "--version"],
  ["python3", "-c", "import os, sys, json, subprocess"],
]

type Asked = { image: string; cpus: number; memoryMib: number; programs?: TemplatePrograms | undefined }

/** The specification of a create, by default of one without options. */
export async function templateSpec(
  core: Pick<Core, "settings"> & OnHost<"images">,
  { image: name, cpus, memoryMib, programs: own }: Asked = {
    image: limits.imageDefault,
    cpus: limits.cpusDefault,
    memoryMib: limits.memoryMibDefault,
  },
): Promise<TemplateSpec> {
  const { images } = core.host
  const [image, kernel] = await Promise.all([images.readImage(name), images.readKernel()])
  const { authority } = core.settings.guestDefaults
  const programs = own ?? (image.programs && { ...image.programs, owner: null })
  return {
    ...{ image, kernel, cpus, memoryMib },
    ...(authority && { authority: authority.digest }),
    ...(programs && { programs }),
  }
}

/**
 * `stop` ends it; its own code does so too, when the host's disk becomes short or `onDisk`, which hears how large the
 * disk of a template with programs has become, throws.
 */
export async function makeTemplate(
  core: ForTemplate,
  spec: TemplateSpec,
  stop: AbortController,
  onDisk: (mib: number) => Promise<void> = async () => {},
): Promise<Template> {
  const startedAt = core.clock.nowMs()
  const { templates } = core.host
  const { memoryMib, programs } = spec
  using _memory = core.memory.promise(templateMib(memoryMib))
  const fields = { image: spec.image.name, cpus: spec.cpus, memoryMib }
  core.log.info(fields, "making a template")

  await using draft = await templates.begin(spec)
  using _watch = programs && watchSpace(core, draft, { stop, onDisk })
  await unlessAborted(prepare(core, draft, spec, stop.signal), stop.signal)
  // The image was checked in parallel with the boot; a template built from a damaged image would outlive the damage.
  await core.host.images.checkImage(spec.image, { isReadThrough: true })
  if (programs) await checkSpace(core, memoryMib)
  stop.signal.throwIfAborted()
  const template = await draft.commit()
  core.events.record({
    type: "template.made",
    meta: { ...fields, ms: Math.round(core.clock.nowMs() - startedAt) },
  })
  core.log.info({ ...fields, ms: Math.round(core.clock.nowMs() - startedAt) }, "template made")
  return template
}

/** Leaves the guest silent, as each clone of it begins. */
async function prepare(
  core: ForTemplate,
  draft: TemplateDraft,
  { image, cpus, memoryMib, programs }: TemplateSpec,
  signal: AbortSignal,
): Promise<void> {
  const { guest } = draft
  try {
    await guest.waitReady({ deadlineMs: bootDeadlineMs })
    const identity = { ...templateIdentity, ...imageDefaults(image.config) }
    await guest.ask({ op: "personalise", identity }, { deadlineMs: stepDeadlineMs })
    await installAuthority(guest, core.settings.guestDefaults)
    for (const argv of warmUp) await exercise(guest, argv)
  } catch (cause) {
    signal.throwIfAborted()
    const fields = { image: image.name, cpus, memoryMib }
    core.log.error({ ...fields, cause, ...(await draft.diagnose()) }, "the template's guest did not come up")
    throw new AppError("unavailable", `image "${image.name}" does not boot`, {
      cause,
      hint: "the daemon's log has the end of the guest's console",
      retryable: false,
    })
  }
  if (programs) await startAndHold(core, guest, programs, signal)
  else await guest.ask({ op: "quiesce", hold: false }, { deadlineMs: stepDeadlineMs })
}

/** Programs in the template may write to its disk without an end. */
function watchSpace(
  core: Pick<Core, "clock" | "space">,
  draft: TemplateDraft,
  { stop, onDisk }: { stop: AbortController; onDisk: (mib: number) => Promise<void> },
): Disposable {
  const over = new AbortController()
  let diskMib = 0
  const watch = async () => {
    while (!over.signal.aborted) {
      if (await core.space.isShort()) {
        stop.abort(
          new AppError("unavailable", "the template was given up: the host's disk is nearly full", {
            hint: "free some space",
          }),
        )
        return
      }
      const nowMib = await draft.measureDiskMib()
      if (nowMib > diskMib && !over.signal.aborted) await onDisk(nowMib)
      diskMib = Math.max(diskMib, nowMib)
      await sleep(core.clock, spaceEveryMs, over.signal)
    }
  }
  watch().catch((error: unknown) => over.signal.aborted || stop.abort(error))
  return { [Symbol.dispose]: () => over.abort() }
}
