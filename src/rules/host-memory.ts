/**
 * Decides whether the host has memory for another machine. Memory is overcommitted, since most machines use little of
 * theirs, so a start counts with the memory it takes at once:
 *
 *   a clone    its own pages and QEMU's heap, 28 MB measured; the template shares the rest. A program that runs in
 *              it writes to its pages as soon as it goes on: 66 MB more with PostgreSQL
 *   a restore  the saved pages, and QEMU
 *   a boot     172 MB of a 512 MB machine, 181 of 1 GB, 311 of 4 GB: the guest's kernel keeps a part of each megabyte
 *   a template all of its memory until it is saved, since its kernel fills what is free with zeros
 *
 * Counting each at its full size would refuse most of the sandboxes that a host carries well. They grow into the
 * reserve, which does not guarantee that all can use their full size at once.
 */

import { pooledMib } from "./pool.ts"

export type MemoryFacts = {
  availableMib: number
  /** Memory that starts in progress may still take. */
  promisedMib: number
  /** Memory kept free; 0 disables the rule. */
  reserveMib: number
}

const programMib = 66

/** In the pool a program stands still, so it counts only for the create. */
export function clonedMib({ programs }: { programs?: object | undefined }): number {
  return pooledMib + (programs ? programMib : 0)
}

export function restoredMib(savedMib: number): number {
  return savedMib + pooledMib
}

export function templateMib(memoryMib: number): number {
  return memoryMib + pooledMib
}

export function bootedMib(memoryMib: number): number {
  return Math.ceil(160 + memoryMib / 24)
}

/** `keptMib` must be left over. */
export function hasRoom(
  { availableMib, promisedMib, reserveMib }: MemoryFacts,
  neededMib: number,
  keptMib = reserveMib,
): boolean {
  return reserveMib === 0 || availableMib - promisedMib - neededMib >= keptMib
}

/** Below this, room is made early so that no start has to be refused yet. */
export function shortMib(reserveMib: number): number {
  return reserveMib * 2
}
