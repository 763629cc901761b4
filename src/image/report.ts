/** How a build tells what it is doing: the words are for people, the step names group them. */

export type Report = (event: { step: "kernel" | "image"; message: string }) => void
