// tree-kill's side of the benchmark: "kill PID" answers when it began and when it called back, in
// nanoseconds of the monotonic clock.
const kill = require('tree-kill')
const readline = require('readline')

readline.createInterface({ input: process.stdin }).on('line', line => {
  const pid = Number(line.split(' ')[1])
  const begin = process.hrtime.bigint()
  kill(pid, 'SIGKILL', error => {
    console.log(error ? `err ${error.message}` : `ok ${begin} ${process.hrtime.bigint()}`)
  })
})
