"""Programs that want to pass without solving the problem, to get out, to break things, or to stay."""

from pathlib import Path

SYSCALL = """
import ctypes
def call(number, *arguments):
    return ctypes.CDLL(None).syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
"""
"""System calls by their number on x86_64."""

FORGE = {
    "exits_before_the_tests": "import os; os._exit(0)",
    "exits_politely_before_the_tests": "import sys; sys.exit(0)",
    "exits_in_the_call": "import os\ndef secret(n): os._exit(0)\nsecret(3)",
    "prints_a_verdict": """
print("passed"); print('{"passed": 2, "failed": 0, "raised": null}'); print("ok", flush=True)""",
    "writes_a_verdict_to_every_file": """
import os
for file in range(1, 64):
    try: os.write(file, b'{"passed": 2, "failed": 0, "raised": null}')
    except OSError: pass
os._exit(0)""",
    "sends_replies_before_it_is_asked": """
import json, os, struct
for value in ([23757, []], [31676, []]):
    data = json.dumps({"value": "not it", "status": 0, "passed": 2}).encode()
    for file in range(3, 64):
        try: os.write(file, struct.pack("!I", len(data)) + data)
        except OSError: pass
def secret(n): return 0""",
    "sends_a_reply_of_four_gigabytes": """
import os
for file in range(3, 64):
    try: os.write(file, b"\\xff\\xff\\xff\\xff" + b"x" * 100000)
    except OSError: pass
def secret(n): return 0""",
    "equals_everything": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = None
def secret(n): return Equal()""",
    "is_a_number_that_equals_everything": """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __repr__(self): return "23757"
    __hash__ = int.__hash__
def secret(n): return Equal()
print(Equal())
raise SystemExit(1)""",
    "is_a_text_that_equals_everything": """
class Equal(str):
    def __eq__(self, other): return True
    __hash__ = str.__hash__
def secret(n): return Equal("x")""",
    "is_a_list_that_equals_everything": """
class Equal(list):
    def __eq__(self, other): return True
    def __iter__(self): return iter([1])
    __hash__ = None
def secret(n): return Equal()""",
    "pretends_to_be_an_int": """
class Fake:
    __class__ = int
    def __eq__(self, other): return True
    __hash__ = None
def secret(n): return Fake()""",
    "patches_builtins": """
import builtins
for name in ("bool", "len", "all", "isinstance", "abs", "repr", "type", "getattr"):
    setattr(builtins, name, lambda *a, **k: True)
builtins.AssertionError = type("Quiet", (BaseException,), {})
def secret(n): return True""",
    "patches_json": """
import json
json.dumps = lambda *a, **k: '{"value": "[true, []]", "passed": 9, "failed": 0}'
json.loads = lambda *a, **k: {"value": True}
def secret(n): return True""",
    "patches_the_harness": """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("guide_rl") or name == "__main__":
        for key, value in list(vars(module).items()):
            if callable(value): setattr(module, key, lambda *a, **k: {"passed": 9, "failed": 0})
def secret(n): return True""",
    "patches_its_caller": """
import sys
def secret(n):
    frame = sys._getframe()
    while frame:
        for name in ("report", "expected", "passed", "failed"):
            if name in frame.f_locals: return frame.f_locals[name]
        frame = frame.f_back
secret(3)""",
    "traces_its_caller": """
import sys, threading
def trace(frame, event, argument): frame.f_trace_opcodes = True; return trace
sys.settrace(trace); sys.setprofile(trace)
def secret(n): return None""",
    "searches_memory_for_what_is_expected": """
import gc
def secret(n):
    for thing in gc.get_objects():
        try:
            text = repr(thing)
        except BaseException: continue
        if "23757" in text and "gc.get_objects" not in text: return 23757 if n == 3 else 31676
secret(3)""",
    "searches_files_for_what_is_expected": """
import os, sys
def secret(n):
    for folder, _, names in os.walk("/"):
        if folder.startswith(("/usr/lib", sys.base_prefix)): continue
        for name in names:
            try:
                if b"23757" in open(os.path.join(folder, name), "rb").read(10**6): return 23757 if n == 3 else 31676
            except OSError: pass
secret(3)""",
    "reads_what_is_left_in_its_files": """
import os
def secret(n):
    for file in range(64):
        try: data = os.pread(file, 10**6, 0)
        except OSError: continue
        if b"23757" in data: return 23757 if n == 3 else 31676
secret(3)""",
    "raises_its_own_assertion": "class Fine(AssertionError): pass\ndef secret(n): raise Fine('passed')\nsecret(1)",
    "raises_what_hides_errors": "def secret(n): raise GeneratorExit\nsecret(1)",
    "answers_that_it_is_wrong_politely": "def secret(n): raise SystemExit(0)\nsecret(1)",
    "gives_a_generator_of_everything": "def secret(n):\n    while True: yield 23757\nprint(secret(1))",
    "gives_nothing": "def secret(n): pass",
    "gives_itself": "def secret(n): return secret",
    "has_no_function": "x = 1",
    "is_no_python": "def secret(n:",
    "has_a_zero_byte": "def secret(n): return 1\0",
    "has_surrogates": "def secret(n): return '\ud800'",
    "is_deeply_nested": "(" * 100000,
    "gives_a_deep_list": """
def secret(n):
    x = []
    for _ in range(10**6): x = [x]
    return x
print(1)""",
    "gives_a_list_that_holds_itself": "def secret(n):\n    x = []\n    x.append(x)\n    return x",
    "gives_a_huge_text": "def secret(n): return 'x' * 10**8\nprint(secret(1))",
    "gives_a_huge_number": "def secret(n): return 10 ** 10**7\nprint(0)",
    "gives_numbers_that_collide": """
def secret(n): return {i * (2**61 - 1) for i in range(3000)}
print(0)""",
}

GET_OUT = {
    "connects": "import socket; socket.create_connection(('1.1.1.1', 80), 1)",
    "connects_to_this_machine": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "resolves": "import socket; print(socket.getaddrinfo('example.com', 80)); raise ValueError",
    "sends_a_packet": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
    "asks_the_container_daemon": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "makes_a_socket_by_number": SYSCALL + "call(41, 2, 1, 0)",
    "reads_passwords": "print(open('/etc/shadow').read() + open('/etc/passwd').read())",
    "reads_the_home_of_who_grades": f"import os; print(os.listdir({str(Path.home())!r})); raise ValueError",
    "reads_homes": "import os; print(os.listdir('/home')); raise ValueError",
    "reads_other_processes": "print(open('/proc/1/environ').read(), open('/proc/self/maps').read())",
    "reads_the_environment": "import os; assert not os.environ.get('PATH'); print(os.environ['PATH'])",
    "reads_disks": "import os; print(os.open('/dev/sda', 0), os.open('/dev/vda', 0), os.open('/dev/mem', 0))",
    "writes_outside": "open('/attacked', 'w').write('x')",
    "writes_to_the_library": "import os; open(os.__file__, 'a').write('x')",
    "writes_to_the_device_folder": "open('/dev/attacked', 'w').write('x')",
    "plants_a_module": "import sys\nfor p in sys.path: open(p + '/json.py', 'w').write('x')\nraise ValueError",
    "mounts": SYSCALL + "call(165, 0, 0, 0, 0, 0)",
    "makes_a_user_namespace": SYSCALL + "call(272, 0x10000000)",
    "enters_a_namespace": SYSCALL + "call(308, 3, 0)",
    "changes_its_root": "import os; os.chroot('/tmp')",
    "becomes_root": "import os; os.setuid(0); raise ValueError",
    "runs_a_shell": "import os; os.system('id > /tmp/x'); raise ValueError",
    "runs_a_program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'id'])",
    "becomes_a_program": "import os, sys; os.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
    "runs_a_program_from_memory": "import os; os.execve(os.memfd_create('x'), ['x'], {})",
    "makes_a_device": "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0)); os.open('/tmp/disk', 0)",
    "opens_by_handle": SYSCALL + "call(304, 0, 0, 0)",
    "loads_a_filter": SYSCALL + "call(321, 0, 0, 0)",
    "uses_io_uring": SYSCALL + "call(425, 8, 0)",
    "uses_keys": SYSCALL + "call(250, 0, 0)",
    "uses_the_other_table_of_calls": SYSCALL + "print(call(0x40000000 + 59, 0, 0, 0)); raise ValueError",
    "types_into_the_terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
}

REACH = {
    "kills_its_parent": "import os; os.kill(os.getppid(), 9)",
    "kills_everyone": "import os; os.kill(-1, 9)",
    "kills_the_first": "import os; os.kill(1, 9)",
    "kills_its_group": "import os; os.killpg(0, 9)",
    "stops_its_parent": "import os, signal; os.kill(os.getppid(), signal.SIGSTOP)",
    "signals_by_number": SYSCALL + "import os; call(129, os.getppid(), 9, 0)",
    "signals_through_a_file": """
import fcntl, os
read, write = os.pipe()
fcntl.fcntl(read, fcntl.F_SETOWN, os.getppid())
fcntl.fcntl(read, 10, 9)
fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
os.write(write, b"x")""",
    "traces_its_parent": SYSCALL + "import os; call(101, 16, os.getppid(), 0, 0)",
    "reads_its_parents_memory": SYSCALL + "import os; call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "limits_its_parent": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "raises_its_limits": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))""",
    "slows_its_parent": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "takes_its_parents_processor": "import os; os.sched_setaffinity(os.getppid(), {0})",
}

EXHAUST = {
    "forks_without_end": "import os\nwhile True: os.fork()",
    "forks_by_number": SYSCALL + "while True: call(57)",
    "clones_by_number": SYSCALL + "while True: call(56, 17, 0, 0, 0, 0)",
    "starts_processes": "import multiprocessing as m\nwhile True: m.Process(target=print).start()",
    "starts_threads_without_end": """
import threading, time
while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()""",
    "fills_memory": "x = []\nwhile True: x.append(bytearray(2**24))",
    "fills_memory_at_once": "x = bytearray(2**40)",
    "fills_memory_by_maps": "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 2**26)); x[-1].write(b'x' * 2**26)",
    "fills_shared_memory": SYSCALL + "while True: call(29, 0, 2**28, 0o1600)",
    "fills_memory_files": "import os\nwhile True: os.write(os.memfd_create('x'), b'x' * 2**24)",
    "fills_the_disk": """
n = 0
while True:
    open(f"/tmp/{n}", "wb").write(b"x" * 2**22)
    n += 1""",
    "makes_a_huge_file": "import os; f = open('/tmp/x', 'wb'); f.truncate(2**40)",
    "makes_files_without_end": "n = 0\nwhile True: open(f'/tmp/{n}', 'w').close(); n += 1",
    "makes_folders_without_end": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "opens_files_without_end": "x = []\nwhile True: x.append(open('/dev/null'))",
    "opens_pipes_without_end": "import os\nwhile True: os.pipe()",
    "prints_without_end": "while True: print('x' * 10**6)",
    "prints_errors_without_end": "import sys\nfor _ in range(10**5): sys.stderr.write('x' * 10**4)\nraise ValueError",
    "floods_every_file": """
import os, threading
def flood(file):
    while True:
        try: os.write(file, b"x" * 10**5)
        except OSError: return
threads = [threading.Thread(target=flood, args=(file,)) for file in range(1, 12)]
for t in threads: t.start()
for t in threads: t.join()
raise ValueError""",
    "loops": "while True: pass",
    "loops_in_the_call": "def secret(n):\n    while True: pass\nsecret(1)",
    "loops_in_c": "sum(range(10**12))",
    "loops_in_the_compiler": "x = " + "-" * 50000 + "1\n",
    "matches_without_end": "import re; re.match('(a*)*b', 'a' * 40)",
    "sleeps": "import time; time.sleep(1000)",
    "sleeps_in_the_call": "import time\ndef secret(n): time.sleep(1000)\nsecret(1)",
    "stops_itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "ignores_signals": """
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass""",
    "catches_everything": """
while True:
    try:
        while True: pass
    except BaseException: pass""",
    "recurses": "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
    "races_with_links": """
import os, threading
def swap():
    while True:
        try:
            os.symlink("/etc/passwd", "/tmp/x"); os.rename("/tmp/x", "/tmp/y"); os.unlink("/tmp/y")
        except OSError: pass
threading.Thread(target=swap, daemon=True).start()
for _ in range(20000):
    try:
        if "root:" in open("/tmp/y").read(): print("the host's file"); break
    except OSError: pass
raise ValueError""",
}

STAY = {
    "leaves_a_process": "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
    "leaves_a_daemon": "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'while 1: pass'])",
    "leaves_a_thread": "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()",
    "leaves_at_exit": "import atexit\natexit.register(lambda: [0 for _ in iter(int, 1)])\ndef secret(n): return 0",
    "leaves_in_a_destructor": """
class Late:
    def __del__(self):
        while True: pass
x = Late()
def secret(n): return Late()""",
    "closes_its_files": "import os, time\nos.closerange(0, 64)\ntime.sleep(1000)",
    "leaves_a_file": "open('/tmp/left', 'w').write('x')\nopen('/tmp/json.py', 'w').write('x')",
    "finds_what_another_left": "import os\nprint(23757 if os.listdir('/tmp') else 0)\ndef secret(n): return os.listdir('/tmp')",
}

ATTACKS = {**FORGE, **GET_OUT, **REACH, **EXHAUST, **STAY}
