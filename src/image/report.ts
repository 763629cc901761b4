/** Reports the progress of a build: messages for people, grouped by step names. */

export type Report = (event: { step: "kernel" | "kit" | "image"; message: string }) => void
