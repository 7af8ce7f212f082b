"""Mistakes in files and flags: one line with the true cause, and with what would be right."""

from functools import partial
from typing import Any
from unittest.mock import patch

from cifar_lightning.data import cifar10
from tests.conftest import CONFIGS
from tests.faults.data_faults import mirror, official, pinned
from tests.faults.data_faults import root as data_root
from tests.faults.settings_faults import modules
from tests.faults.table import FIT, SMALL, Fault, Table

CNN = f"fit --model=CNN {SMALL}"
BEFORE = "no architecture comes before it"


def flag(title: str, flags: str, *says: str, fit: str = FIT) -> Fault:
    return Fault(title, f"{fit} {flags}", 2, says)


def file(title: str, content: str, *says: str, fit: str = FIT, **more: Any) -> Fault:
    return Fault(title, f"{fit} --config=a.yaml", more.pop("status", 2), says, {"a.yaml": content}, **more)


def trainer(title: str, content: str, *says: str) -> Fault:
    return file(title, f"trainer: {{{content}}}\n", *says)


def callback(title: str, content: str, *says: str) -> Fault:
    return trainer(title, f"callbacks: {content}", *says)


def stopping(title: str, arguments: str, *says: str) -> Fault:
    content = f"[{{class_path: EarlyStopping, init_args: {{monitor: val/loss, {arguments}}}}}]"
    return callback(f"EarlyStopping: {title}", content, *says)


def benchmark(title: str, flags: str, *says: str) -> Fault:
    make = partial(patch, "cifar_lightning.benchmark.command.compare", None)  # must not be called
    return Fault(f"benchmark {title}", f"benchmark {SMALL} {flags}", 2, says, {"a.txt": "hello"}, make=make)


WRITTEN = "is not how a class is written; write {class_path: NAME"
CNN_FILE = "model: {class_path: CNN, init_args: {channels: [8], dropout: 0.1}}\n"
MODULE = """\
from lightning.pytorch import Callback
from typing import Callable, Union
class Picky(Callback):
    def __init__(self, often: int): raise ValueError("often must be even")
class Vague(Callback):
    def __init__(self, how: Union[Callable, str]): pass
"""


TABLE: Table = [
    "an argument of another class: its owner (pytorch-lightning#8916)",
    flag("width belongs to the MLP", "--model.width=5", "model.width: CNN has no width, which belongs to MLP",
         "its settings are channels, batch_norm, dropout, dropout_scaling, lr", fit=CNN),
    flag("channels belong to the CNNs", "--model.channels=[3]",
         "MLP has no channels, which belongs to CNN, WhitenedCNN"),
    flag("resolutions of a network that takes none", "--data.resolutions=[24]",
         "data.resolutions: MLP takes 32 pixels a side; leave it out, or use WhitenedCNN"),
    flag("a misspelt setting of a model", "--model.drpout=1",
         "model.drpout: MLP has no drpout; did you mean model.drop"),
    file("width in the CNN's file", "model: {class_path: CNN, init_args: {width: 3}}\n", "CNN has no width"),
    flag("no model comes before", "--model.width=3", "model.width", BEFORE, fit="fit"),
    file("no class in the model's file", "model: {lr: 0.1}\n", "model: 'ImageClassifier' is not", "CNN, MLP or",
         fit="fit"),
    file("an empty model", "model: {}\n", "model: 'ImageClassifier' is not possible; use CNN, MLP or", fit="fit"),
    flag("the base class", "", "model: 'ImageClassifier' is not possible; use CNN, MLP or",
         fit="fit --model=ImageClassifier"),
    file("arguments beside the class path", "model: {class_path: MLP, lr: 0.1}\n", "model: {'class_path'", WRITTEN),
    file("arguments as a list", "model: {class_path: CNN, init_args: [64]}\n",
         "model.init_args: not the arguments of CNN"),
    file("a model in lower case", "model: {class_path: cnn}\n", "model: cnn can't be used; did you mean CNN?"),
    file("a model under a wrong path", "model: {class_path: cifar_lightning.Cnn}\n", "cifar_lightning.Cnn",
         "mean CNN?"),
    file("a model of torchvision", "model: {class_path: torchvision.models.ResNet}\n", "torchvision.models.ResNet",
         "use CNN, MLP or WhitenedCNN, or the import path of your own"),
    "another model than the file's: said, and in the run's name (pytorch-lightning#8916)",
    Fault("MLP over the CNN's file", f"fit --config=a.yaml --model=MLP --model.width=8 {SMALL}", 0,
          ("model.channels is left out: MLP has no such setting", "logs/mlp-width=8-"), {"a.yaml": CNN_FILE},
         ("logs/*",)),
    "a callback without its argument: missing (pytorch-lightning#12714)",
    flag("EarlyStopping without a monitor", "--trainer.callbacks+=EarlyStopping",
         "trainer.callbacks.monitor: missing, EarlyStopping needs it; give --trainer.callbacks.monitor VALUE"),
    callback("EarlyStopping as a text", "EarlyStopping", "trainer.callbacks.monitor: missing"),
    flag("CSVLogger without a folder", "--trainer.logger=CSVLogger",
         "trainer.logger.save_dir: missing, CSVLogger needs"),
    flag("an argument before its class", "--trainer.callbacks.patience=3", "trainer.callbacks.patience",
         "no class comes before it; give --trainer.callbacks+=NAME first"),
    "a wrong argument of a callback: its name, value and types (jsonargparse#341)",
    stopping("a misspelt argument", "patince: 3", "trainer.callbacks.patince", "EarlyStopping has no patince",
             "did you mean trainer.callbacks.patience?"),
    stopping("a text for a number", "patience: 3 epochs", "trainer.callbacks.patience: 3 epochs is not",
         "a whole number"),
    stopping("no such mode", "mode: maximum", "trainer.callbacks: EarlyStopping: `mode` can be min, max, got maximum"),
    callback("no such interval", "[{class_path: LearningRateMonitor, init_args: {logging_interval: steps}}]",
             "trainer.callbacks.logging_interval: steps is not possible; use one of step, epoch or null"),
    callback("no monitor for the best three", "[{class_path: ModelCheckpoint, init_args: {save_top_k: 3}}]",
             "trainer.callbacks: ModelCheckpoint", "save_top_k=3, monitor=None", "No quantity for top_k to track"),
    callback("a duration with a unit", "[{class_path: Timer, init_args: {duration: 1d}}]", "Timer(duration='1d')",
             "DD:HH:MM:SS"),
    callback("a key that is no number",
         "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {a: 3}}}]",
             "trainer.callbacks.scheduling: invalid literal for int() with base 10: 'a'",
         "GradientAccumulationScheduler"),
    Fault("a constructor of one's own refuses", f"{FIT} --trainer.callbacks+=picky.Picky --trainer.callbacks.often=3",
         2,
          ("trainer.callbacks: Picky: often must be even",), {"picky.py": MODULE}, make=modules),
    Fault("an argument that config.yaml can't hold", f"{FIT} --trainer.callbacks+=picky.Vague "
          "--trainer.callbacks.how=fast", 2, ("how: config.yaml can't hold it", "serialize instance fast"),
          {"picky.py": MODULE}, make=modules),
    flag("no such function", "--trainer.callbacks+=LambdaCallback --trainer.callbacks.on_fit_start=foo",
         "trainer.callbacks.on_fit_start: foo is not possible; use import path or null"),
    flag("another kind of function", "--trainer.callbacks+=WeightAveraging --trainer.callbacks.avg_fn=math.sqrt",
         "trainer.callbacks.avg_fn: math.sqrt is not possible"),
    trainer("a number for a folder", "logger: {class_path: CSVLogger, init_args: {save_dir: 3}}",
            "trainer.logger.save_dir: 3 is not possible; use text"),
    flag("no such argument of a profiler", "--trainer.profiler=PyTorchProfiler --trainer.profiler.foo=3",
         "trainer.profiler.foo: PyTorchProfiler has no foo"),
    "a class written in another way: how (pytorch-lightning#15007)",
    callback("arguments beside the class", "[{class_path: EarlyStopping, monitor: val/loss}]", WRITTEN),
    callback("the class as a key", "[{EarlyStopping: {monitor: val/loss}}]", WRITTEN),
    callback("init_arg for init_args", "[{class_path: EarlyStopping, init_arg: {monitor: val/loss}}]", WRITTEN),
    callback("classpath for class_path", "[{classpath: EarlyStopping}]", "{'classpath': 'EarlyStopping'}", WRITTEN),
    callback("a list for the arguments", "[{class_path: EarlyStopping, init_args: [monitor, val/loss]}]",
             "trainer.callbacks.init_args: not the arguments of EarlyStopping"),
    callback("a list in a list", "[[EarlyStopping]]", "['EarlyStopping'] can't be used"),
    callback("a number for a callback", "[3]", "trainer.callbacks: 3 can't be used"),
    flag("two in one flag", "--trainer.callbacks+=EarlyStopping,Timer", "EarlyStopping,Timer can't be used"),
    file("one callback, in no list",
         "trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: val/loss}}}\n",
         status=0, fit=f"{FIT} --name=mlp", changes=("logs/*",)),
    callback("a number for the name of an argument", "[{class_path: Timer, init_args: {1: 2}}]", "1: no name of"),
    flag("a number for a class", "--model='{class_path: 3}'", "model: {'class_path': 3}", WRITTEN),
    "no space behind a colon: YAML reads a name without a value",
    flag("a class without a space", "--model={class_path:MLP}", "model: {class_path:MLP}", WRITTEN),
    flag("a group without a space", "--trainer={max_epochs:2}", "--trainer.NAME VALUE"),
    flag("a number without a space", "--model=CNN --model.channels={8:16}", "model: a number in the place of a name"),
    flag("a time without a space", "--trainer.max_time={hours:1}", "{hours:1}", "{hours: 12}"),
    file("an argument without a space", "model: {class_path: MLP, init_args: {width:8}}\n", "did you mean model.width"),
    "a class that is not there: the nearest (pytorch-lightning#18546)",
    callback("a misspelt callback", "[ModelCheckpont]", "ModelCheckpont can't be used; did you mean ModelCheckpoint?"),
    callback("the other package's name", "[{class_path: pytorch_lightning.callbacks.EarlyStopping}]",
         "mean EarlyStopping?"),
    callback("a module that is not there", "[{class_path: mycode.Hello}]", "mycode.Hello", "No module named 'mycode'"),
    callback("a class of another kind", "[{class_path: torch.nn.Linear}]", "torch.nn.Linear can't be used"),
    trainer("wandb for its logger", "logger: wandb", "trainer.logger: wandb can't be used; did you mean WandbLogger?"),
    "a package that is not there: pip install (pytorch-lightning#1487)",
    flag("MLFlowLogger without mlflow", "--trainer.logger=MLFlowLogger", "trainer.logger: MLFlowLogger needs mlflow",
         "is not installed; pip install 'mlflow"),
    flag("CometLogger without comet", "--trainer.logger=CometLogger", "CometLogger needs comet-ml",
         "pip install 'comet-ml"),
    flag("deepspeed", "--trainer.strategy=deepspeed", "DeepSpeed", "pip install 'deepspeed'"),
    "a value of the Trainer's: the setting that is wrong (pytorch-lightning#16496)",
    flag("two machines", "--trainer.num_nodes=2", "trainer.num_nodes: 2, and nothing says where they meet; set MASTER"),
    flag("batch norm over processes, on the CPU", "--trainer.sync_batchnorm=true",
         "trainer.sync_batchnorm: True is not possible; use false: PyTorch has it for GPUs alone"),
    flag("Lightning's sampler for two devices", "--trainer.devices=2 --trainer.use_distributed_sampler=true",
         "trainer.use_distributed_sampler: True is not possible; use false: it gives images twice"),
    flag("a search on two devices", "--trainer.devices=2 --trainer.callbacks+=LearningRateFinder",
         "trainer.callbacks: 'LearningRateFinder' is not possible; use it on one device"),
    flag("no machine", "--trainer.num_nodes=0", "trainer.num_nodes: 0"),
    flag("devices by name", "--trainer.devices=cpu", "trainer.devices", "should be an int > 0"),
    flag("no GPU", "--trainer.accelerator=gpu", "trainer.accelerator: 'gpu' is not possible; use auto or "),
    flag("a time with a unit", "--trainer.max_time=12h", "trainer.max_time", "12h", "DD:HH:MM:SS"),
    flag("never validated", "--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch: 0 is not",
         "1 or more"),
    flag("validated all the time", "--trainer.val_check_interval=0", "trainer.val_check_interval: 0 is not possible"),
    flag("validated by the clock", "--trainer.val_check_interval=00:00:01:00",
         "trainer.val_check_interval: '00:00:01:00' is not", "by the clock"),
    flag("no time", "--trainer.max_time=00:00:00:00", "trainer.max_time: '00:00:00:00' is not", "DD:HH:MM:SS"),
    flag("a time in a unit that is none", "--trainer.max_time='{hour: 1}'", "trainer.max_time: {'hour': 1} is not"),
    flag("clipped by no value", "--trainer.gradient_clip_algorithm=value",
         "trainer.gradient_clip_algorithm: 'value' is not", "gradient_clip_val"),
    flag("another folder for all runs", "--trainer.default_root_dir=x", "trainer.default_root_dir: 'x'", "--logs"),
    *(trainer(f"nothing behind {name}", f"{name}: null", f"trainer.{name}: None is not possible; use a value")
      for name in ("accumulate_grad_batches", "accelerator", "detect_anomaly", "max_steps", "overfit_batches")),
    flag("clipped below zero", "--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val: -1 is not", "0 or more"),
    flag("a number with a unit", "--trainer.max_epochs=5epochs", "trainer.max_epochs: 5epochs is not",
         "a whole number"),
    flag("a percentage", "--trainer.limit_val_batches=10%", "trainer.limit_val_batches: 10% is not", "a number"),
    flag("a comma in a number", "--model.lr=0,001", "model.lr: 0,001 is not possible; use a number"),
    trainer("a class for an accelerator", "accelerator: [cpu]", "trainer.accelerator: ['cpu'] can't be used"),
    trainer("no such profiler", "profiler: simpel", "trainer.profiler", "simple"),
    "a name that was another one: today's (pytorch-lightning#10574)",
    flag("gpus", "--trainer.gpus=1", "trainer.gpus: there is no such setting; did you mean trainer.accelerator?"),
    flag("epochs", "--epochs=3", "epochs: there is no such setting; did you mean trainer.max_epochs?"),
    flag("a setting without its group", "--lr=0.1", "lr: there is no such setting; did you mean model.lr?"),
    file("a scheduler of its own", "lr_scheduler: cosine\n", "lr_scheduler", "did you mean model.schedule?"),
    file("a seed", "seed: 3\n", "seed: there is no such setting; did you mean seed_everything?"),
    file("below the command", "fit: {trainer: {max_epochs: 1}}\n", "did you mean trainer.max_epochs?"),
    file("arguments of the data", "data: {init_args: {batch_size: 3}}\n", "did you mean data.batch_size?"),
    file("a class for the data", "data: {class_path: MyData}\n", "data.class_path: there is no such setting"),
    flag("one hyphen", "-trainer.max_epochs=3", "-trainer.max_epochs=3", "flags start with --"),
    "a value that can't be: what is possible",
    flag("no such optimizer", "--model.optimizer=adamx", "model.optimizer: adamx is not", "adam, adamw, sgd, muon"),
    flag("a number for a list", "--model.channels=3", "model.channels: 3 is not possible; use a list", fit=CNN),
    flag("a seed below zero", "--seed_everything=-3", "seed_everything: -3 is not"),
    flag("no epochs", "--trainer.max_epochs=0", "trainer.max_epochs: 0 is not", "0 trains nothing"),
    flag("no name of an image", "--data.images=", "data.images: '' is not possible; use the names of images"),
    flag("batches of one image", "--data.batch_size=1", "data.batch_size: 1 leaves", "--model.batch_norm false"),
    flag("the data's seed in a flag", "--data.seed=3", "data.seed: follows seed_everything; give --seed_everything"),
    "no model: where to get one",
    *(flag(f"nothing to fit{flags}", flags, "model: missing; give --config configs/cnn.yaml", "fit --resume RUN",
           fit="fit") for flags in ("", "--ckpt_path=last")),
    flag("an overlay alone", f"--config={CONFIGS / 'no_dropout.yaml'}", "model.dropout", BEFORE, "configs/cnn.yaml",
         fit="fit"),
    flag("a study's file", f"--config={CONFIGS / 'study.yaml'}", "study.yaml: is the configuration of a study",
         "study --config", fit="fit"),
    "no group of settings: the file and what belongs there (pytorch-lightning#8916)",
    trainer("no number, a group", "max_epochs: {a: 3}", "trainer.max_epochs"),
    file("a number for the Trainer", "trainer: 3\n", "a.yaml, trainer: 3 is no group of settings"),
    file("a list for the Trainer", "trainer: [max_epochs: 3]\n", "a.yaml, trainer", "no group of settings"),
    file("a list for the data", "data: [1]\n", "a.yaml, data: [1] is no group of settings"),
    file("nothing below the data", "data:\n", "a.yaml, data: nothing stands below it"),
    file("nothing below a model's arguments", "model: {class_path: CNN, init_args: }\n",
         "a.yaml, model.init_args: nothing stands below it", fit="fit"),
    file("nothing behind the seed", "seed_everything:\n", "a.yaml, seed_everything: nothing stands below it"),
    file("no batch size", "data: {batch_size: }\n", "data.batch_size: None is not possible; use a value"),
    file("no learning rate", "model: {class_path: MLP, init_args: {lr: null}}\n", "model.lr: None is not possible"),
    file("a number for a name", "data: {1: 3}\n", "1: no name of a setting"),
    file("a list for a class path", "model: {class_path: [CNN]}\n", "model: {'class_path': ['CNN']}", WRITTEN),
    file("the data's seed", "data: {seed: 5}\n", "a.yaml, data.seed: follows seed_everything"),
    file("a file in a file", "config: b.yaml\n", "config: File does not exist", "--config FILE"),
    flag("a data set by name", "--data=CIFAR100",
         "data: CIFAR100 is no file of its settings; give each as --data.NAME"),
    flag("a file without its folder", "--config=cnn.yaml", "cnn.yaml: there is no such file; see the folder configs/"),
    flag("no file behind -c", "-c", "config: nothing follows it"),
    "a benchmark that can't be: refused before anything is measured",
    *(benchmark(*row) for row in (
        ("no rounds", "--model=MLP --rounds=0", "rounds: 0 is not possible; use 1 or more"),
        ("to no folder", "--output=nowhere/b.json", "output: 'nowhere/b.json'", "a folder that exists"),
        ("below a file", "--output=a.txt/b.json", "output: 'a.txt/b.json'", "a folder that exists"),
        ("to a folder", "--output=.", "output: '.'", "a folder that exists"),
        ("of a checkpoint", "--ckpt_path=last.ckpt", "ckpt_path", "--config"),
        # By `fit`, of either model.
        ("of the impossible", "--model=MLP --model.dropout=3", "model.dropout: 3", "0 to 1"),
        ("with a setting of the MLP", "--model.width=16", "model.width"),
        ("with a setting of the CNN", "--model.channels=[4]", "model.channels"),
    )),
    "a folder of other things: not filled (pytorch#740)",
    data_root("data root of photos", "photos", "no cifar-10-batches-py in photos, but other files, such as a.jpg",
              "give --data.root photos/cifar10", files={"photos/a.jpg": "hello"}, mirrors="$MIRROR/good", make=mirror),
    data_root("data root one too deep", f"root/{cifar10.FOLDER}", "of which cifar-10-batches-py is a part",
              files={"root": official}, make=pinned),
]  # fmt: skip
