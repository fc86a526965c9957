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
    "is_a_decimal_that_equals_everything": """
from decimal import Decimal
class Equal(Decimal):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = Decimal.__hash__
def secret(n): return Equal(23757)
Decimal.__eq__ = None""",
    "is_a_decimal_that_answers_nothing": "from decimal import Decimal\ndef secret(n): return Decimal('sNaN')",
    "is_a_huge_decimal": "from decimal import Decimal\ndef secret(n): return Decimal('1e999999999')",
    "calls_other_values_fractions": """
import builtins, fractions
class Fraction:
    numerator = denominator = property(lambda self: self)
    def __eq__(self, other): return True
fractions.Fraction = builtins.Fraction = Fraction
def secret(n): return Fraction()""",
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
    "fills_memory_by_maps": """
import mmap
x = []
while True: x.append(mmap.mmap(-1, 2**26)); x[-1].write(b'x' * 2**26)""",
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
    "finds_what_another_left": """
import os
print(23757 if os.listdir('/tmp') else 0)
def secret(n): return os.listdir('/tmp')""",
}

TRICKS = {
    # forged frames
    "forges_frames_of_a_pass": """
import json, os, struct
for message in ({"value": "[true, []]"}, {"passed": 9, "failed": 0, "raised": None}, {"object": 0}, {"value": True}):
    data = json.dumps(message).encode()
    for file in range(3, 12):
        try: os.write(file, struct.pack("!I", len(data)) + data)
        except OSError: pass
def secret(n): return 0""",
    "forges_values_with_strange_tags": """
import json, os, struct
def say(value):
    data = json.dumps({"value": json.dumps(value)}).encode()
    os.write(4, struct.pack("!I", len(data)) + data)
os.write(4, struct.pack("!I", 2) + b"{}")
for value in ([{"?": 1}, []], [{"o": 0}, [["Opaque", [["__eq__", True]]]]], [{"o": -1}, []],
    [{"__class__": 1}, []], [{"n": "0x0"}, [["int", []]]],
    [{"t": {"l": 1}}, []], [{"r": [0, 2**62, 1]}, []], [{"c": ["nan", 1]}, []], {"n": 1}):
    for _ in range(2): say(value)
os._exit(0)""",
    "gives_nan": "def secret(n): return float('nan')\nprint(secret(3))",
    "gives_infinity": "def secret(n): return float('inf')\nprint(secret(3))",
    "gives_true": "def secret(n): return True\nprint(True)",
    "gives_a_number_as_text": """
def secret(n): return {3: '23757 '}.get(0, '2375' + '8')
print('2375', '7', sep='')if 0 else print('+23 757')""",
    "gives_a_nested_value_of_a_gigabyte": """
def secret(n):
    x = ['x' * 1000]
    for _ in range(40): x = [x, x]
    return x
print(1)""",
    "gives_a_dict_that_lies": """
class Lies(dict):
    def items(self): return [(1, 23757)]
    def __eq__(self, other): return True
    __hash__ = None
def secret(n): return Lies()
print(Lies())""",
    "gives_bytes_that_lie": """
class Lies(bytes):
    def __eq__(self, other): return True
    def hex(self): return '5c cd'
    __hash__ = None
def secret(n): return Lies(b'x')""",
    "gives_what_reduces_to_code": """
import os, pickle
class Evil:
    def __reduce__(self): return (os.system, ('touch /tmp/attacked',))
def secret(n): return pickle.dumps(Evil())
print(pickle.dumps(Evil()))""",
    "lies_about_its_class_name": """
class int: pass
class Opaque: pass
Opaque.__module__ = int.__module__ = 'tests'
Opaque.__name__ = Opaque.__qualname__ = 'int'
def secret(n): return Opaque()""",
    "raises_stop_iteration": "def secret(n): raise StopIteration(23757)\nsecret(3)",
    "raises_an_error_that_lies": """
class Meta(type):
    @property
    def __name__(self): return 'passed'
    def mro(self): return [self, Exception, BaseException, object]
class Fine(Exception, metaclass=Meta):
    def __str__(self): return 'passed'
def secret(n): raise Fine
secret(3)""",
    # harness mutation
    "mutates_the_harness_modules": """
import sys
from guide_rl.graders.sandbox.inside import plain_data, roles
plain_data.dumps = lambda value, classes: '[23757, []]'
roles.Channel.send = lambda self, message: None
roles.Report.failed = lambda *a: None
def secret(n): return 0""",
    "replaces_the_send_of_its_channel": """
import gc, json
for thing in gc.get_objects():
    if type(thing).__name__ == 'Channel':
        send = type(thing).send
        type(thing).send = lambda self, message: send(self, {'value': '[true, []]', 'passed': 2, 'failed': 0})
def secret(n): return 0""",
    "patches_exec_compile_and_print": """
import builtins, sys
builtins.compile = builtins.exec = lambda *a, **k: None
builtins.print = lambda *a, **k: None
sys.stdout.write = lambda *a: 5
def secret(n): return None""",
    "poisons_imports": """
import sys
class Finder:
    def find_spec(self, *a): raise SystemExit(0)
sys.meta_path.insert(0, Finder()); sys.path_hooks.clear(); sys.modules.clear()
def secret(n): return None""",
    "adds_an_audit_hook": """
import sys
def hook(event, args):
    if event in ('open', 'compile', 'exec', 'import'): raise SystemExit(0)
sys.addaudithook(hook)
def secret(n): return compile('0', '', 'eval')
secret(3)""",
    "exits_in_an_excepthook": """
import sys, os, threading
sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *a: os._exit(0)
def secret(n): 1 / 0
secret(3)""",
    "exits_in_an_exit_handler": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "exits_in_a_finalizer": """
import os, weakref
class X: pass
x = X(); weakref.finalize(x, os._exit, 0)
def secret(n):
    global x
    x = None
secret(3)""",
    "handles_every_signal_with_success": """
import os, signal
for s in range(1, 65):
    try: signal.signal(s, lambda *a: os._exit(0))
    except (OSError, ValueError): pass
os.kill(os.getpid(), signal.SIGTERM)
def secret(n): os.abort()""",
    "exits_by_an_alarm": """
import os, signal, time
signal.signal(signal.SIGALRM, lambda *a: os._exit(0)); signal.setitimer(signal.ITIMER_REAL, 0.05)
def secret(n): time.sleep(5)
secret(3)""",
    "exits_in_a_thread": """
import os, threading, time
threading.Thread(target=lambda: (time.sleep(0.05), os._exit(0)), daemon=True).start()
def secret(n): time.sleep(5)
secret(3)""",
    "collects_garbage_that_exits": """
import gc, os
gc.callbacks.append(lambda *a: os._exit(0))
gc.unfreeze(); gc.collect()
def secret(n): return 0""",
    "looks_for_the_other_side_in_every_frame": """
import sys
def values():
    for frame in sys._current_frames().values():
        while frame:
            yield from list(frame.f_locals.values()) + list(frame.f_globals.values())
            frame = frame.f_back
def secret(n):
    for value in values():
        if '2375' + '7' in repr(value): return n * 7919
secret(3)""",
    "reads_more_of_its_channel": """
import os
def secret(n):
    os.set_blocking(3, False)
    data = b''
    for file in range(64):
        try:
            os.set_blocking(file, False)
            data += os.read(file, 10**6)
        except OSError: pass
    if b'2375' in data: return 7919 * n
    return 0""",
    "reads_its_own_memory": """
memory = open('/proc/self/mem', 'rb')
def secret(n): return 0""",
    "asks_for_an_answer_on_standard_input": """
import os, sys
def secret(n): return 7919 * n if '2375' in sys.stdin.read() + os.read(0, 100).decode() else 0
secret(3)""",
    "swaps_its_files": """
import os
for one in range(0, 12):
    for other in range(0, 12):
        try: os.dup2(one, other)
        except OSError: pass
def secret(n): return 0""",
    "closes_its_output_politely": """
import os, sys
sys.stdout.close(); sys.stdin.close()
os.close(1); os.close(3)
def secret(n): return 0""",
    "replaces_its_output_with_its_input": "import os\nos.dup2(0, 1)\nprint(23750 + 6)\ndef secret(n): return 0",
    "shuts_its_channel": """
import os, socket
for file in range(1, 12):
    try: socket.socket(fileno=os.dup(file)).shutdown(2)
    except OSError: pass
def secret(n): return 0""",
    "sends_files_through_its_channel": """
import array, os, socket
for file in range(1, 12):
    try: socket.socket(fileno=os.dup(file)).sendmsg([b'x'], [(1, 1, array.array('i', [0] * 50))])
    except OSError: pass
def secret(n): return 0""",
    "makes_its_channel_slow": """
import os, struct, time
os.write(4, struct.pack('!I', 10**6))
while True: os.write(4, b'x'); time.sleep(0.01)""",
    # out
    "clones_with_three": SYSCALL + "print(call(435, 0, 0)); raise ValueError",
    "clones_a_namespace_as_a_thread": SYSCALL
    + "print(call(56, 0x10000 | 0x800 | 0x100 | 0x10000000, 0, 0, 0, 0)); raise ValueError",
    "handles_page_faults": SYSCALL + "call(323, 0)",
    "becomes_any_user": SYSCALL
    + "print([call(n, 0, 0, 0) for n in (105, 106, 113, 114, 117, 119, 122, 123, 116)]); raise ValueError",
    "takes_rights_back": SYSCALL
    + """
import struct
header, all_of_them = struct.pack('Ii', 0x20080522, 0), b'\\xff' * 24
print(call(126, id(header) + 32, id(all_of_them) + 32))
raise ValueError""",
    "becomes_a_program_by_its_file": SYSCALL + "call(322, 0, 0, 0, 0, 0x1000)",
    "makes_a_file_of_memory": "import os; os.memfd_create('x')",
    "loads_a_library_it_wrote": "import ctypes; open('/tmp/x.so', 'wb').write(b'\\x7fELF'); ctypes.CDLL('/tmp/x.so')",
    "maps_code_it_wrote": """
import ctypes, mmap
code = b'\\xb8\\x39\\x00\\x00\\x00\\x0f\\x05\\xc3'  # fork()
m = mmap.mmap(-1, 4096, prot=7); m.write(code)
print(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())""",
    "calls_as_a_32_bit_program": """
import ctypes, mmap
code = b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3'  # int 0x80: fork
m = mmap.mmap(-1, 4096, prot=7); m.write(code)
print(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())""",
    "outlives_its_parent": SYSCALL
    + "call(157, 1, 0, 0, 0, 0); call(157, 4, 1, 0, 0, 0); call(157, 36, 1, 0, 0, 0)\nwhile True: pass",
    "filters_its_own_calls": SYSCALL
    + """
import struct, ctypes
call(157, 38, 1, 0, 0, 0)
code = struct.pack('HBBI', 6, 0, 0, 0x50000)
buffer = ctypes.create_string_buffer(code, 8)
descriptor = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(buffer)), 16)
call(157, 22, 2, ctypes.addressof(descriptor), 0, 0)
def secret(n): return 0""",
    "listens_on_a_pair": """
import socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
a.sendto(b'x', '/run/systemd/notify'); a.sendto(b'x', '/dev/log')""",
    "sets_the_clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "syncs_the_hosts_disks": "import os\nwhile True: os.sync()",
    "locks_the_libraries": "import fcntl, os; fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)\nwhile True: pass",
    "watches_folders": """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(10**5): libc.inotify_init()
raise ValueError""",
    # exhaust
    "writes_a_huge_file": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * 2**20)",
    "seeks_far": "import os; f = os.open('/tmp/x', 66); os.lseek(f, 2**62, 0); os.write(f, b'x'); raise ValueError",
    "recurses_in_its_representation": "x = []\nfor _ in range(10**6): x = [x]\nprint(x)\ndef secret(n): return repr(x)",
    "recurses_in_equality": """
a = []; b = []
for _ in range(10**5): a = [a]; b = [b]
def secret(n): return a == b
print(a == b, 1)""",
    "frees_a_deep_structure": """
class N: pass
x = None
for _ in range(10**6):
    y = N(); y.x = x; x = y
del x, y
def secret(n): return 0""",
    "multiplies_without_end": "x = 3 ** (10**7)\nx = x ** 3\ndef secret(n): return x",
    "prints_a_huge_number": """
import sys; sys.set_int_max_str_digits(0); print(7 ** 10**6)
def secret(n): return str(3 ** 10**7)""",
    "formats_without_end": "print('%1000000000d' % 1)\ndef secret(n): return '%1000000000d' % 1",
    "folds_constants": "x = ((((9 ** 9) ** 9) ** 9) ** 9) ** 9\ndef secret(n): return 'x' * 10**10",
    "is_a_huge_expression": "x = " + "+".join(["1"] * 200_000),
    "nests_blocks": "".join(" " * i + "if 1:\n" for i in range(200)) + " " * 200 + "pass",
    "nests_functions": "\n".join(" " * i + f"def f{i}():" for i in range(90)) + "\n" + " " * 90 + "pass",
    "has_a_huge_name": "x" * 10**6 + " = 1",
    "sorts_with_a_liar": "import functools\nsorted(range(10**7), key=functools.cmp_to_key(lambda a, b: 1))",
    "imports_everything": """
import os, sys
for name in sorted(sys.stdlib_module_names):
    try: __import__(name)
    except BaseException: pass
raise ValueError""",
    "fills_pipes": """
import fcntl, os
for _ in range(20):
    r, w = os.pipe()
    try: fcntl.fcntl(w, 1031, 2**20)
    except OSError: pass
    os.set_blocking(w, False)
    try:
        while True: os.write(w, b'x' * 65536)
    except OSError: pass
raise ValueError""",
    "prints_in_tiny_parts": "import os\nwhile True: os.write(1, b'x'); os.write(4, b'x')",
    "burns_in_threads": """
import threading, hashlib
for _ in range(30): threading.Thread(target=lambda: [hashlib.sha256(bytes(10**7)) for _ in iter(int, 1)]).start()""",
    "deadlocks": "import threading\nl = threading.Lock(); l.acquire(); l.acquire()",
    "deadlocks_in_imports": """
import _imp, threading
_imp.acquire_lock()
t = threading.Thread(target=lambda: __import__('colorsys')); t.start(); t.join()""",
    "leaves_threads_after_it_returns": """
import threading, time
def secret(n):
    for _ in range(20): threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)]).start()
    return 0
print(secret(3))""",
    # source
    "declares_a_strange_encoding": "# -*- coding: utf-7 -*-\n+AG8-s = 1",
    "declares_rot13": "# coding: rot13\nqrs frperg(a): erghea a * 7918",
    "begins_with_a_mark_of_byte_order": "\ufeff\ufeffdef secret(n): return 0",
    "ends_lines_strangely": "def secret(n):\x0c\r    return 0\x1a\u2028import os\u2029",
    "mixes_tabs_and_spaces": "def secret(n):\n\tif n:\n        return 0\n\treturn 1",
    "looks_like_another_letter": "def s\u0435cret(n): return n * 7919\nprint(int(input()) * 7918)",
    "returns_outside": "return 23757",
    "awaits": "async def secret(n): return 7919 * n\nprint(secret(3))",
    "is_a_class_named_so": """
class secret:
    def __new__(cls, n): return object.__new__(cls)
    def __eq__(self, other): return True""",
}

ATTACKS = {**FORGE, **GET_OUT, **REACH, **EXHAUST, **STAY, **TRICKS}

TEXTS = {
    "many_blocks": "```python\nx = 1\n```\n" * 50_000,
    "many_beginnings": "```python\n" * 100_000,
    "many_marks": "~" * 10**6 + "`",
    "many_lines": "x = 1\n" * 8_000_000,
    "one_line": "```python\nx = " + "1" * 10**7,
    "one_text": "```python\nx = '" + "a" * 5 * 10**7 + "'",
    "blank": " " * 10**7,
    "indented": "```python\n" + "\n".join(" " * (i % 100) + "if 1:" for i in range(10**5)),
    "indented_fence": " " * 10**5 + "```python\n" + (" " * 1000 + "x = 1\n") * 5000,
    "surrogates": "```python\n" + "\ud800" * 10**6,
    "zero_bytes": "```python\n" + "\0" * 10**6,
    "comments": "#" * 10**7,
    "brackets": "[" * 10**6,
    "quotes": "'" * 10**6,
    "backslashes": "\\\n" * 10**6,
    "calls": "f(" * 10**5 + ")" * 10**5,
    "attributes": "x" + ".x" * 10**6,
    "f_texts": "f'{" * 10**5,
}
"""Texts of a model, blocks and all, that are much work for whoever reads them."""
