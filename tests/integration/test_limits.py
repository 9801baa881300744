"""Numbers that no script takes."""

import pytest

import search
import test as test_script
import train
from utils import UserError
from utils.options import flags_of

FLAGS = {
    flag.name: flag
    for script in (train, test_script, search)
    for flag in flags_of(*(group for groups in script.GROUPS.values() for group in groups))
}


@pytest.mark.parametrize(
    "flags",
    [
        *("accumulate 0", "batch_size 0", "cmt_depth 0", "cnum 0", "eval_period 0", "k 0", "k 1001"),
        *("index_batch 0", "log_period 0", "lora_r -1", "moe_heads 0", "num_context 0", "num_epoch 0", "num_experts 0"),
        *(
            "num_instance 0",
            "num_workers -1",
            "port 65536",
            "prompt_depth -1",
            "reduction 0",
            "report_count 0",
            "rerank -1",
        ),
        *(
            "save_every -1",
            "seed -1",
            "stride_size 0",
            "test_batch_size 0",
            "text_length 2",
            "topk 0",
            "warmup_epochs -1",
        ),
        *("alpha_mom 1.5", "bank_momentum 1.5", "id_threshod 1.5", "instance_momentum -0.5", "ivf_share 0.0"),
        *("ivf_share 1.5", "lora_alpha 0.0", "lora_lr 0.0", "lr 0.0", "lr -1.0", "mask_probability 1.5", "tau 0.0"),
        *("temp 0.0", "temp_instance -1.0", "temperature 0.0", "thred1 -1.5", "thred2 1.5", "weight 1.5"),
        *("weight_decay -1.0", "word_deletion 1.5", "masked_token_rate -0.5", "masked_token_unchanged_rate 1.5"),
        *("mannequin_train_ids -1", "mannequin_val_ids -1", "mannequin_test_ids -1", "mannequin_seed -3"),
        *(
            "cmt_depth 101",
            "cnum 1001",
            "num_experts 1001",
            "moe_layers 101",
            f"seed {2**63}",
            f"mannequin_seed {2**63}",
        ),
        *("mannequin_captions_per_image 0", "mannequin_height 31", "mannequin_height 2049"),
    ],
)
def test_a_number_out_of_range_is_refused(flags: str):
    name, value = flags.split()
    with pytest.raises(UserError, match=f"--{name} {value}: expected (at|a number above) "):
        FLAGS[name].coerce(value)
