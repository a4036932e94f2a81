// Package workflow owns named sequences of steps: what a step is called, what it cost, and what is
// done when it fails.
//
// # Promises
//   - The steps of a [Flow] run in the order in which they were listed; a step that fails ends the run,
//     unless its handler makes up for it.
//   - Each step shows in the metrics by its own name: how often, how long, how many failures.
//
// # Not here
// What the steps do (the packages that define a Flow). A Flow keeps no state: what must survive a
// crash is in SQL, and what follows from it is found in the log.
package workflow
