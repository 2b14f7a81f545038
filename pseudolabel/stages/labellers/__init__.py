"""How each method takes samples: one file per method, all called alike; `table` names them."""
