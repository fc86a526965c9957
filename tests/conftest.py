"""What every test starts from: offline, one thread."""

import os
import signal

for _name, _value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ.setdefault(_name, _value)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
